"""`load`: what a name means, which options it takes, and what is told if it means nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from tfmeta.data import ClassDataset, load
from tfmeta.data.names import NAMED


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("omniglot", ["split", "data_dir", "protocol", "rotations"]),
        ("glyphs", ["split", "data_dir"]),
        ("digits", ["split"]),
        ("mini_imagenet", ["split", "data_dir"]),
        ("cifar_fs", ["split", "data_dir"]),
        ("cifar100", ["split", "data_dir", "image_size"]),
        (Path("somewhere"), ["split", "image_format", "on_error"]),
        (([[1], [2]], [0, 1]), ["split", "class_names"]),
        ("sinusoid", "none"),
        ("linear", "none"),
    ],
)
def test_unknown_options_are_told_with_those_there_are(name: Any, options: Any) -> None:
    with pytest.raises(ValueError, match="takes the options") as error:
        load(name, colour="red")
    assert f"takes the options {options}; got ['colour']." in str(error.value)


def test_unknown_names_are_told_with_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No data set named 'omnigolt'") as error:
        load("omnigolt", data_dir=tmp_path)
    assert "Did you mean 'omniglot'?" in str(error.value)
    for accepted in (*NAMED, "folder", "arrays", "TensorFlow"):
        assert accepted in str(error.value)


def test_the_nearest_name_may_be_one_of_tensorflow_datasets(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'stanford_dogs'\?"):
        load("standford_dogs", data_dir=tmp_path)


@pytest.mark.parametrize(
    "name", ["omniglot", "glyphs", "digits", "mini_imagenet", "cifar_fs", "cifar100"]
)
def test_unknown_splits_are_told_before_any_work(name: str, tmp_path: Path) -> None:
    options = {} if name == "digits" else {"data_dir": tmp_path}
    with pytest.raises(ValueError, match=r"split must be one of train, .*, all; got 'dev'"):
        load(name, split="dev", **options)
    assert not list(tmp_path.iterdir())


# === Folders and data sets of the same name ===


class TfmetaTestConfigured(tfds.core.GeneratorBasedBuilder):
    """Has configurations, as cifar10_corrupted has."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS's name and type)
        tfds.core.BuilderConfig(name="dark_1", description="All is 10."),
        tfds.core.BuilderConfig(name="light_1", description="All is 250."),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"test": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        level = 10 if self.builder_config.name == "dark_1" else 250
        for i in range(4):
            yield i, {"image": np.full((4, 4, 3), level, np.uint8), "label": i % 2}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tfds")


def make_folder(path: Path) -> None:
    for name in ("first", "second"):
        (path / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(path / name / "1.png")


def level(data: ClassDataset) -> int:
    return round(float(data.fetch(np.concatenate(data.rows)).numpy().mean() * 255))


def test_a_data_set_with_a_configuration_is_loaded_by_name(data_dir: Path) -> None:
    for config, expected in (("dark_1", 10), ("light_1", 250)):
        name = f"tfmeta_test_configured/{config}"
        data = load(name, split="all", data_dir=data_dir)
        assert data.class_names == ["a", "b"]
        assert data.source == {"name": name, "split": "all"}
        assert level(data) == expected


def test_a_local_folder_hides_no_data_set(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.chdir(tmp_path)
    make_folder(Path("digits"))
    make_folder(Path("tfmeta_test_configured/dark_1"))
    assert load("digits", split="all").class_names == [str(k) for k in range(10)]
    data = load("tfmeta_test_configured/dark_1", split="all", data_dir=data_dir)
    assert data.class_names == ["a", "b"]
    for name in ("./digits", "digits/", "./tfmeta_test_configured/dark_1", Path("digits")):
        assert load(name).class_names == ["first", "second"]


@pytest.mark.parametrize(
    "written", ["mine", "mine/", "./mine", "sub/mine", "~/mine", "~/sub/mine", "{}/mine"]
)
def test_a_folder_is_loaded_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    make_folder(Path("mine"))
    make_folder(Path("sub/mine"))
    data = load(written.format(tmp_path))
    assert data.class_names == ["first", "second"]
    assert data.source == {"name": "mine", "split": "all"}


# === Folders that are not there ===


@pytest.mark.parametrize("name", ["./missing", "../missing", "missing.d/x-1", Path("missing")])
def test_where_a_missing_folder_was_looked_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="No such folder: ") as error:
        load(name)
    assert str(error.value) == f"No such folder: {name} (looked in {tmp_path})."


def test_a_missing_absolute_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("missing", "file"):
        for path in (tmp_path / name, str(tmp_path / name)):
            with pytest.raises(ValueError) as error:
                load(path)
            assert str(error.value) == f"No such folder: {path}."


@pytest.mark.parametrize("name", ["my_images/", "cifar10_corupted/brightness_1"])
def test_both_possible_meanings_of_a_missing_name_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        load(name)
    message = str(error.value)
    assert message.startswith(f"No such folder: {name} (looked in {tmp_path}). No data set named ")
    assert ("Did you mean 'cifar10_corrupted'?" in message) == name.startswith("cifar10")


def test_a_folder_that_is_taken_for_a_data_set_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        load("my_images", image_format=None)
    assert f"No such folder: my_images (looked in {tmp_path})" in str(error.value)
    assert "TensorFlow Datasets" in str(error.value)
    make_folder(Path("my_images"))
    assert len(load("my_images", image_format=None)) == 2


# === What is no data ===


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((9, 2)),
        tf.data.Dataset.range(3),
        ((np.zeros((4, 2)), np.zeros(4, int)), (np.zeros((2, 2)), np.zeros(2, int))),
        (np.zeros((4, 2)), np.zeros(4, int), np.zeros(4)),
        None,
        7,
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_is_accepted_is_told(given: Any) -> None:
    with pytest.raises(ValueError, match=r"\(x, y\)") as error:
        load(given)
    assert len(str(error.value)) < 700
