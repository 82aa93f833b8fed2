"""Emoji: what is drawn and how it is split, from packages that are made up."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from made_up_packages import circle, write_package

import tfmeta.data.emoji
from tfmeta.data import load
from tfmeta.data.emoji import PACKAGES, PUBLISHED_DIGEST, SPLIT_GROUPS, VENDORS
from tfmeta.data.sources.drawings import prepare_from_packages
from tfmeta.recipes.data import NAMED_DATA

pytest.importorskip("resvg_py", reason="resvg-py is not installed")

# One or two emoji of each group, by name: code points, group, and the fill of all drawings.
EMOJI = {
    "bell": ("1f514", "Objects", "#f00"),
    "red-heart": ("2764-fe0f", "Smileys & Emotion", "#f80"),
    "rocket": ("1f680", "Travel & Places", "#ff0"),
    "soccer-ball": ("26bd", "Activities", "#0f0"),
    "eyes": ("1f440", "People & Body", "#0ff"),
    "dog": ("1f415", "Animals & Nature", "#00f"),
    "pizza": ("1f355", "Food & Drink", "#80f"),
    "rare": ("1f355-fe0f-200d", "Food & Drink", "#000"),  # A sequence.
    "chequered-flag": ("1f3c1", "Flags", "#000"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all packages, where the size of a disc tells the package."""
    folder = tmp_path_factory.mktemp("npm")
    for number, package in enumerate(PACKAGES):
        # The last has one emoji less, and the rocket is in too few.
        names = [name for name in EMOJI if not (name == "rocket" and number >= 7)]
        names = names if number < 9 else [name for name in names if name != "dog"]
        write_package(
            folder,
            package.name,
            package.version,
            {name: circle(2 + number / 2, EMOJI[name][2]) for name in names},
            codes={EMOJI[name][0]: name for name in names} if number in (0, 5) else {},
            groups={
                EMOJI[name][1]: [n for n in names if EMOJI[n][1] == EMOJI[name][1]]
                for name in names
            },
        )
    return folder


@pytest.fixture(scope="module")
def data_dir(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("tfds")
    with pytest.warns(RuntimeWarning, match="differ from those of which"):
        load("emoji", data_dir=data_dir, manual_dir=folder)
    return data_dir


@pytest.fixture
def published(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The digest of the made-up drawings, as if they were the published ones."""
    digest = tfmeta.data.emoji.EmojiBuilder(data_dir=data_dir).info.metadata["digest"]
    monkeypatch.setattr(tfmeta.data.emoji, "PUBLISHED_DIGEST", digest)
    return str(digest)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", {"bell": 10, "red-heart": 10}),
        ("validation", {"soccer-ball": 10, "eyes": 10}),
        ("test", {"dog": 9, "pizza": 10}),
    ],
)
def test_splits_are_groups_of_emoji_with_enough_drawings(
    data_dir: Path, published: str, split: str, expected: dict[str, int]
) -> None:
    data = load("emoji", split=split, data_dir=data_dir)
    sizes = dict(zip(data.class_names, map(len, data.rows), strict=True))
    assert sizes == expected
    everything = load("emoji", split="all", data_dir=data_dir)
    assert set(data.class_names) < set(everything.class_names) and len(everything) == 6


def test_drawings_are_in_colour_on_white_and_know_their_vendor(
    data_dir: Path, published: str
) -> None:
    data = load("emoji", data_dir=data_dir)
    assert data.example_shape == (64, 64, 3)
    assert data.source == {"name": "emoji", "split": "train", "image_size": [64, 64]}
    assert data.fingerprint() == f"emoji/1.0.0 {published[:16]}"
    bell = data.class_names.index("bell")
    images = data.fetch(tf.constant(data.rows[bell])).numpy()
    np.testing.assert_array_equal(images[:, 0, 0], np.ones((10, 3)))
    np.testing.assert_array_equal(images[:, 32, 32], np.tile([1.0, 0, 0], (10, 1)))
    # The radius grows by half a unit of 16 with each package.
    radii = np.sqrt((1 - images[..., 1]).sum(axis=(1, 2)) / np.pi) / 4
    packages = np.round(2 * (radii - 2)).astype(int)
    assert sorted(packages) == list(range(10))
    assert [PACKAGES[n].vendor for n in packages] == data.groups[bell].tolist()


def test_the_two_sets_of_fluent_are_one_vendor(data_dir: Path, published: str) -> None:
    groups = load("emoji", data_dir=data_dir).groups[0].tolist()
    assert groups.count("fluent") == 2 and len(groups) == 10
    assert set(groups) == set(VENDORS) and len(VENDORS) == 9


def test_queries_of_vendors_that_the_support_set_has_not(data_dir: Path, published: str) -> None:
    data = load("emoji", data_dir=data_dir)
    episodes = data.episodes(
        n_way=2, n_shot=2, n_query=8, meta_batch_size=8, support_groups=["fluent"]
    )
    inputs, _ = next(iter(episodes))
    sizes = [
        {round(float(1 - image[..., 2].mean()), 3) for image in part.numpy().reshape(-1, 64, 64, 3)}
        for part in (inputs["support_x"], inputs["query_x"])
    ]
    # Each package has a disc of its own size: two of them, and the other eight.
    assert list(map(len, sizes)) == [2, 8]
    assert not sizes[0] & sizes[1]


def test_other_sizes(data_dir: Path, published: str) -> None:
    data = load("emoji", data_dir=data_dir, image_size=(24, 20))
    assert data.example_shape == (24, 20, 3)


def test_two_builds_are_identical(folder: Path, published: str, tmp_path: Path) -> None:
    again = tfmeta.data.emoji.EmojiBuilder(data_dir=tmp_path)
    prepare_from_packages(again, PACKAGES, folder)
    assert again.info.metadata["digest"] == published


def test_missing_packages_are_named_with_one_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'emoji' is drawn from npm packages") as caught:
        load("emoji", data_dir=tmp_path)
    command = str(caught.value).split("with: ")[1]
    folder = tmp_path / "downloads" / "manual"
    assert command.startswith(f"npm install --ignore-scripts --prefix {folder} ")
    assert all(f"@iconify-json/{p.name}@{p.version}" in command.split() for p in PACKAGES)
    assert not folder.exists()


def test_options_are_checked_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'emoji' data takes the options .* got \['vendors'\]"):
        load("emoji", data_dir=tmp_path, vendors=["noto"])
    with pytest.raises(ValueError, match="split must be one of"):
        load("emoji", data_dir=tmp_path, split="valid")


def test_a_recipe_can_name_it() -> None:
    assert NAMED_DATA["emoji"].model_validate({"name": "emoji", "image_size": [32, 32]})


def test_every_package_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "data_licences.md").read_text(encoding="utf-8")
    for p in PACKAGES:
        assert f"| {p.name} | {p.version} | {p.licence} | {p.author} |" in text


@pytest.mark.large
def test_the_real_drawings_are_those_of_the_documentation(tmp_path: Path) -> None:
    folder = os.environ.get("TFMETA_EMOJI_PACKAGES")
    if not folder:
        pytest.skip("needs the npm packages: TFMETA_EMOJI_PACKAGES, their folder, is not set")
    counts = {}
    for split in SPLIT_GROUPS:
        data = load("emoji", split=split, data_dir=tmp_path, manual_dir=folder)
        counts[split] = len(data), sum(map(len, data.rows))
    assert counts == {"train": (650, 5822), "validation": (125, 1109), "test": (155, 1465)}
    builder = tfmeta.data.emoji.EmojiBuilder(data_dir=tmp_path)
    assert builder.info.metadata["digest"] == PUBLISHED_DIGEST
