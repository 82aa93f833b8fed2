"""Icons: what is drawn and how it is split, from packages that are made up."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from made_up_packages import bars, circle, write_package

import tfmeta.data.icons
from tfmeta.data import load
from tfmeta.data.icon_packages import PACKAGES
from tfmeta.data.icons import PUBLISHED_DIGEST
from tfmeta.recipes.data import NAMED_DATA

pytest.importorskip("resvg_py", reason="resvg-py is not installed")

SETS = 24
NAMES = ["anchor", "bug", "clock", "flag", "house", "magnet", "robot", "skull", "sun", "wallet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all packages, of which the first 24 have icons, in a pattern of their own."""
    folder = tmp_path_factory.mktemp("npm")
    for number, package in enumerate(PACKAGES):
        icons: dict[str, str] = {}
        if number < SETS:
            icons = {name: bars(4 * number + 3) for name in NAMES}
            icons["copied"] = circle(number % 3 + 1)  # Three that differ.
            icons["blank"] = "<g/>" if number < 6 else bars(4 * number + 3)
            if number < 19:
                icons["rare"] = bars(4 * number + 3)
        styled = {f"{name}-outline" if number % 2 else name: icon for name, icon in icons.items()}
        write_package(folder, package.name, package.version, styled)
    return folder


@pytest.fixture(scope="module")
def data_dir(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("tfds")
    with pytest.warns(RuntimeWarning, match="icons differ from those of which"):
        load("icons", data_dir=data_dir, manual_dir=folder)
    return data_dir


@pytest.fixture
def published(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The digest of the made-up drawings, as if they were the published ones."""
    digest = tfmeta.data.icons.IconsBuilder(data_dir=data_dir).info.metadata["digest"]
    monkeypatch.setattr(tfmeta.data.icons, "PUBLISHED_DIGEST", digest)
    return str(digest)


def test_classes_have_enough_distinct_drawings(data_dir: Path, published: str) -> None:
    data = load("icons", split="all", data_dir=data_dir)
    assert data.class_names == sorted([*(set(NAMES) - {"house"}), "home"])
    assert [len(rows) for rows in data.rows] == [SETS] * len(NAMES)
    for groups in data.groups:
        assert sorted(groups) == sorted(p.vendor for p in PACKAGES[:SETS])


def test_splits_share_no_class(data_dir: Path, published: str) -> None:
    parts = [load("icons", split=s, data_dir=data_dir) for s in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [6, 2, 2]
    assert len({name for part in parts for name in part.class_names}) == 10


def test_ink_is_one_as_in_omniglot(data_dir: Path, published: str) -> None:
    data = load("icons", split="all", data_dir=data_dir)
    assert data.example_shape == (28, 28, 1)
    images = data.fetch(tf.constant(data.rows[0])).numpy()
    assert (images[:, 0] == 0).all()
    first = images[data.groups[0].tolist().index(PACKAGES[0].vendor), 14, :, 0]
    # Of 28 pixels for 16 units: the bars of 3, from 0 to 1 and from 2 to 3.
    assert first.argmax() in (0, 4) and (first[8:] == 0).all()
    assert first[0] > 0.9 and first[4] > 0.9 and first[2] < 0.3


def test_other_sizes(data_dir: Path, published: str) -> None:
    assert load("icons", data_dir=data_dir, image_size=(64, 64)).example_shape == (64, 64, 1)


def test_queries_of_other_families(data_dir: Path, published: str) -> None:
    families = [p.vendor for p in PACKAGES[:SETS]]
    data = load("icons", split="all", data_dir=data_dir)
    episodes = data.episodes(
        n_way=3, n_shot=2, n_query=2, support_groups=families[:2], query_groups=families[2:4]
    )
    inputs, _ = next(iter(episodes))
    image = {
        family: data.fetch(tf.constant(data.rows[0])).numpy()[n]
        for n, family in enumerate(data.groups[0])
    }
    for part, expected in (("support_x", families[:2]), ("query_x", families[2:4])):
        seen = {np.round(x, 5).tobytes() for x in inputs[part].numpy().reshape(-1, 28, 28, 1)}
        assert seen == {np.round(image[family], 5).tobytes() for family in expected}


def test_missing_packages_are_named_with_one_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'icons' is drawn from npm packages") as caught:
        load("icons", data_dir=tmp_path, manual_dir=tmp_path / "npm")
    command = str(caught.value).split("with: ")[1]
    assert all(f"@iconify-json/{p.name}@{p.version}" in command.split() for p in PACKAGES)


def test_a_recipe_can_name_it() -> None:
    assert NAMED_DATA["icons"].model_validate({"name": "icons"})


def test_licences_ask_for_no_more_than_attribution() -> None:
    permissive = {"MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "CC0-1.0", "Unlicense", "OFL-1.1"}
    assert {package.licence for package in PACKAGES} <= {*permissive, "CC-BY-4.0"}


def test_every_package_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "data_licences.md").read_text(encoding="utf-8")
    for p in PACKAGES:
        assert f"| {p.name} | {p.version} | {p.licence} | {p.author} |" in text


@pytest.mark.large
def test_the_real_drawings_are_those_of_the_documentation(tmp_path: Path) -> None:
    folder = os.environ.get("TFMETA_ICONS_PACKAGES")
    if not folder:
        pytest.skip("needs the npm packages: TFMETA_ICONS_PACKAGES, their folder, is not set")
    counts = {}
    for split in ("train", "validation", "test", "all"):
        data = load("icons", split=split, data_dir=tmp_path, manual_dir=folder)
        counts[split] = len(data), sum(map(len, data.rows)), min(map(len, data.rows))
    assert counts == {
        "train": (168, 5843, 20),
        "validation": (42, 1374, 20),
        "test": (53, 1809, 20),
        "all": (263, 9026, 20),
    }
    builder = tfmeta.data.icons.IconsBuilder(data_dir=tmp_path)
    assert builder.info.metadata["digest"] == PUBLISHED_DIGEST
