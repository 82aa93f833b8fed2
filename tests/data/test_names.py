"""The resolver of names: its rules, and its table beside the functions that it names."""

import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tfmeta.data.names import ARRAYS, FOLDER, NAMED, TFDS, Source, resolve


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "regression" if name in ("sinusoid", "linear") else "named") for name in NAMED),
        ("mnist", "tfds"),
        ("mnist:3.0.1", "tfds"),
        ("no_such_thing", "tfds"),
        ("cifar10_corrupted/brightness_1", "tfds"),
        ("cifar10_corrupted/brightness_1:1.0.0", "tfds"),
        ("huggingface:lhoestq/demo1", "tfds"),
        ("cifar10_corrupted/", "folder"),
        ("no_such/thing", "folder"),
        ("my_images/", "folder"),
        (".", "folder"),
        ("./omniglot", "folder"),
        ("../mnist", "folder"),
        ("/data/mnist", "folder"),
        ("~/mnist", "folder"),
        (r"C:\data\mnist", "folder"),
        ("C:/data/mnist", "folder"),
        (r"data\mnist", "folder"),
        (Path("omniglot"), "folder"),
        (([], []), "arrays"),
    ],
)
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_what_names_mean(
    name: Any, kind: str, separator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sep", separator)  # Windows's must not change what a name means.
    for existing in ("omniglot", "digits", "mnist", "cifar10_corrupted/brightness_1"):
        Path(existing).mkdir(parents=True)
        assert resolve(name).kind == kind, "folders that exist beside must not matter"


def test_other_names_mean_a_folder_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("photos").kind == "tfds"
    Path("photos").mkdir()
    assert resolve("photos").kind == "folder"


@pytest.mark.parametrize("name", ["", None, 5, ([1],), ([1], [2], [3])])
def test_what_is_no_name_is_told(name: Any) -> None:
    with pytest.raises(ValueError, match=r"must be .*(omniglot|\(x, y\))"):
        resolve(name)


@pytest.mark.parametrize("source", [*NAMED.values(), FOLDER, TFDS, ARRAYS], ids=lambda s: s.name)
def test_the_table_lists_exactly_the_options_of_each_source(source: Source) -> None:
    parameters = set(inspect.signature(pkgutil.resolve_name(source.loader)).parameters)
    given_by_name = {"tfds": {"name"}, "folder": {"path"}, "arrays": {"x", "y"}}
    assert parameters - given_by_name.get(source.kind, set()) == set(source.all_options)


def test_resolving_imports_nothing_heavy() -> None:
    program = """
import sys, types
package = types.ModuleType("tfmeta")  # Without what tfmeta/__init__.py imports.
package.__path__ = [sys.argv[1]]
sys.modules["tfmeta"] = package
import tfmeta.data
import tfmeta.data.image_folders
import tfmeta.data.tables
for name in ("omniglot", "sinusoid", "./images", "images/", "cifar100"):
    tfmeta.data.resolve(name).check_options([])
tfmeta.data.ImageFormat(5, 5)
heavy = "tensorflow keras tensorflow_datasets matplotlib scipy PIL sklearn"
print(*[module for module in heavy.split() if module in sys.modules])
"""
    package = Path(inspect.getfile(Source)).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program, package], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
