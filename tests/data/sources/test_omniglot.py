"""Omniglot in both protocols; skipped without the data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfmeta.data import ClassDataset, ImageFormat, load
from tfmeta.data.sources.from_tfds import read_classes

PARTS = ("train", "validation", "test")


def examples(data: ClassDataset, name: str) -> np.ndarray:
    return data.fetch(tf.constant(data.rows[data.class_names.index(name)])).numpy()


def test_omniglot_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise tfds.download.DownloadError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(ConnectionError, match=r"'omniglot' is not in .*TFDS_DATA_DIR"):
        load("omniglot", data_dir=tmp_path)


@pytest.fixture(scope="module")
def omniglot(omniglot_dir: Path) -> dict[str, ClassDataset]:
    return {split: load("omniglot", data_dir=omniglot_dir, split=split) for split in PARTS}


@pytest.fixture(scope="module")
def lake(omniglot_dir: Path) -> dict[str, set[str]]:
    """The characters of the splits under Lake's protocol. What they look like does not matter."""

    def blank(builder: Any, splits: Any, classes: list[str], image_format: ImageFormat) -> Any:
        labels = [builder.info.features["label"].str2int(name) for name in classes]
        return np.zeros((len(labels), *image_format.shape), np.uint8), np.array(labels)

    options: Any = {"data_dir": omniglot_dir, "protocol": "lake", "rotations": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfmeta.data.sources.omniglot.read_classes", blank)
        return {
            split: set(load("omniglot", split=split, **options).class_names)
            for split in (*PARTS, "all")
        }


def characters(data: ClassDataset) -> set[str]:
    return {name.split("/")[0] for name in data.class_names}


def alphabets(names: set[str]) -> set[str]:
    return {name.rsplit("_", 1)[0] for name in names}


@pytest.mark.large
def test_omniglot_has_1100_100_and_423_characters_in_four_rotations(
    omniglot: dict[str, ClassDataset],
) -> None:
    for data, n in zip(omniglot.values(), (1100, 100, 423), strict=True):
        assert len(characters(data)) == n
        assert set(data.class_names) == {
            name + turn for name in characters(data) for turn in ("", "/90", "/180", "/270")
        }


@pytest.mark.large
def test_omniglot_has_twenty_drawings_of_each(omniglot: dict[str, ClassDataset]) -> None:
    for data in omniglot.values():
        assert {len(rows) for rows in data.rows} == {20}
        assert data.example_shape == data.image_format.shape == (28, 28, 1)


@pytest.mark.large
def test_no_character_of_a_split_is_in_another_however_turned(
    omniglot: dict[str, ClassDataset],
) -> None:
    joined = set().union(*(characters(data) for data in omniglot.values()))
    assert len(joined) == 1100 + 100 + 423 == sum(len(characters(d)) for d in omniglot.values())


@pytest.mark.large
def test_ink_is_one_on_paper_zero(omniglot: dict[str, ClassDataset]) -> None:
    for data in omniglot.values():
        x = np.concatenate([examples(data, name) for name in data.class_names[::37]])
        assert (x.min(), x.max()) == (0, 1)
        assert 0.02 < x.mean() < 0.2
        assert (np.median(x, axis=(1, 2, 3)) < 0.1).all(), "most of every drawing is paper"
        assert (x.max(axis=(1, 2, 3)) > 0.5).all(), "and none is empty"


@pytest.mark.large
def test_rotations_are_turned_drawings_of_the_character(omniglot: dict[str, ClassDataset]) -> None:
    for data in omniglot.values():
        for name in sorted(characters(data))[::50]:
            upright = examples(data, name)
            for quarters in (1, 2, 3):
                turned = np.rot90(upright, quarters, axes=(1, 2))
                assert not np.array_equal(turned, upright)
                np.testing.assert_array_equal(examples(data, f"{name}/{90 * quarters}"), turned)


def test_images_of_other_classes_are_not_decoded(
    omniglot_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = tfds.builder("omniglot", data_dir=omniglot_dir)
    names, decoded = builder.info.features["label"].names[:3], []

    def counted(image_format: ImageFormat, encoded: tf.Tensor) -> tf.Tensor:
        tf.py_function(lambda: decoded.append(1), [], [])
        return tf.zeros(image_format.shape, tf.uint8)

    monkeypatch.setattr(ImageFormat, "from_plain", counted)
    x, y = read_classes(builder, ("train", "test"), names, ImageFormat(28, 28, 1))
    assert np.bincount(y).tolist() == [20, 20, 20]
    assert (x.shape, len(decoded)) == ((60, 28, 28, 1), 60)


@pytest.mark.large
def test_omniglot_without_rotations_has_the_characters_alone(
    omniglot_dir: Path, omniglot: dict[str, ClassDataset]
) -> None:
    data = load("omniglot", data_dir=omniglot_dir, split="test", rotations=False)
    assert set(data.class_names) == characters(omniglot["test"])
    name = data.class_names[5]
    np.testing.assert_array_equal(examples(data, name), examples(omniglot["test"], name))


# As listed with the data set: https://github.com/brendenlake/omniglot, images_evaluation.
EVALUATION = {
    "Angelic",
    "Atemayar_Qelisayer",
    "Atlantean",
    "Aurek-Besh",
    "Avesta",
    "Ge_ez",
    "Glagolitic",
    "Gurmukhi",
    "Kannada",
    "Keble",
    "Malayalam",
    "Manipuri",
    "Mongolian",
    "Old_Church_Slavonic_(Cyrillic)",
    "Oriya",
    "Sylheti",
    "Syriac_(Serto)",
    "Tengwar",
    "Tibetan",
    "ULOG",
}


def test_lake_tests_on_exactly_the_evaluation_alphabets(lake: dict[str, set[str]]) -> None:
    assert alphabets(lake["test"]) == EVALUATION
    assert len(lake["test"]) == 659


def test_lake_splits_are_disjoint_by_alphabet_and_cover_all(lake: dict[str, set[str]]) -> None:
    parts = [alphabets(lake[split]) for split in PARTS]
    assert [len(part) for part in parts] == [25, 5, 20]
    assert len(set().union(*parts)) == 50
    assert len(lake["train"] | lake["validation"]) == 964
    assert lake["train"] | lake["validation"] | lake["test"] == lake["all"]
    assert len(lake["all"]) == 1623


def test_unknown_protocols_are_told() -> None:
    with pytest.raises(ValueError, match=r'"random1200" or "lake"; got \'vinyals\''):
        load("omniglot", protocol="vinyals")
