"""Where classes come from: `load` with each kind of source, and what it says when it cannot."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from tfmeta.data import ClassDataset, ImageFormat, load, sources

PARTS = ("train", "validation", "test")


def examples(data: ClassDataset, name: str) -> np.ndarray:
    return data.fetch(tf.constant(data.rows[data.class_names.index(name)])).numpy()


# === Any name ===


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("omniglot", ["split", "data_dir", "protocol", "rotations"]),
        ("glyphs", ["split", "data_dir"]),
        ("digits", ["split"]),
        ("mini_imagenet", ["split", "data_dir"]),
        ("cifar_fs", ["split", "data_dir"]),
        ("tfmeta_test_fixed", ["split", "data_dir", "image_size"]),
        (Path("somewhere"), ["split", "image_format"]),
        (([[1], [2]], [0, 1]), ["split", "class_names"]),
        ("sinusoid", "none"),
    ],
)
def test_unknown_options_are_told_with_those_there_are(name: Any, options: Any) -> None:
    with pytest.raises(ValueError, match="takes the options") as error:
        load(name, colour="red")
    assert f"takes the options {options}; got ['colour']." in str(error.value)


def test_unknown_names_are_told_with_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No data set named 'omnigolt'") as error:
        load("omnigolt", data_dir=tmp_path)
    for accepted in (*sources.BY_NAME, "sinusoid", "linear", "folder", "arrays", "TensorFlow"):
        assert accepted in str(error.value)


@pytest.mark.parametrize(
    "name", ["omniglot", "glyphs", "digits", "mini_imagenet", "cifar_fs", "tfmeta_test_fixed"]
)
def test_unknown_splits_are_told_before_any_work(name: str, tmp_path: Path) -> None:
    options = {} if name == "digits" else {"data_dir": tmp_path}
    with pytest.raises(ValueError, match=r"split must be one of train, .*, all; got 'dev'"):
        load(name, split="dev", **options)
    assert not list(tmp_path.iterdir())


def test_digits_say_how_to_get_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "tfmeta\[digits\]"'):
        load("digits")


def test_digits_have_ink_one() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    x = examples(load("digits", split="all"), "0")
    assert x.shape[1:] == (8, 8, 1)
    assert (x.min(), x.max()) == (0, 1)
    corner, stroke = x[:, 0, 0].mean(), x[:, 3, 2].mean()
    assert corner < 0.01 < 0.5 < stroke, "a nought is paper in the corner and ink on the left"


# === Arrays ===


def test_arrays_are_grouped_by_label() -> None:
    data = load((np.array([[0], [51], [255]], np.uint8), [1, 0, 1]), class_names=["a", "b"])
    assert data.class_names == ["a", "b"]
    assert examples(data, "a").tolist() == [[np.float32(0.2)]]
    assert examples(data, "b").tolist() == [[0], [1]]
    assert data.source == {"name": "arrays", "split": "all"}


def test_bad_arrays_are_told_through_load() -> None:
    with pytest.raises(ValueError, match=r"must be finite"):
        load(([[np.nan], [1]], [0, 1]))
    with pytest.raises(ValueError, match=r"shapes \(2, 1\) and \(3,\)"):
        load(([[0], [1]], [0, 1, 1]))
    with pytest.raises(ValueError, match=r"must be integers; got float64"):
        load(([[0], [1]], [0.0, 1.0]))


# === Folders ===

N_IMAGES = 3


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of PNG and JPEG files, all of different sizes; and what must not count."""
    root = tmp_path_factory.mktemp("images")
    for k in range(4):
        folder = root / f"class {k}"
        folder.mkdir()
        for i in range(N_IMAGES):
            rows, columns = np.mgrid[: 30 + 7 * i, : 40 + 9 * k]
            pixels = np.stack([rows * 4, columns * 3, rows + columns + 20 * k], axis=-1)
            path = folder / f"{i}{('.png', '.jpg', '.JPEG')[i]}"
            Image.fromarray(pixels.astype(np.uint8)).save(path, quality=100, subsampling=0)
        (folder / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    (root / "notes.txt").write_text("no class")
    return root


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_is_read_as_pillow_reads_it(
    image_folder: Path, channels: int, invert: bool
) -> None:
    data = load(image_folder, image_format=ImageFormat(20, 24, channels, invert))
    assert data.class_names == [f"class {k}" for k in range(4)]
    assert data.example_shape == (20, 24, channels)
    for name in data.class_names:
        x = examples(data, name)
        assert (x.shape, x.dtype) == ((N_IMAGES, 20, 24, channels), np.float32)
        files = [image_folder / name / f for f in ("0.png", "1.jpg", "2.JPEG")]
        for ours, path in zip(x, files, strict=True):
            image = Image.open(path).convert("RGB" if channels == 3 else "L")
            resized = image.resize((24, 20), Image.Resampling.LANCZOS)
            expected = np.asarray(resized, np.float32).reshape(ours.shape) / 255
            difference = np.abs(ours - (1 - expected if invert else expected)).max() * 255
            # Pillow rounds after each of two passes, and cuts grey to whole levels: less than 2.
            # JPEG: see test_all_kinds_of_files_decode_to_the_channels.
            assert difference < (2.01 if path.suffix == ".png" else 6.01)


def test_a_folder_is_colour_of_84_pixels_by_default(image_folder: Path) -> None:
    assert load(image_folder).example_shape == (84, 84, 3)
    assert load(str(image_folder)).image_format == ImageFormat(84, 84)


def test_episodes_of_a_folder_have_its_images(image_folder: Path) -> None:
    data = load(image_folder, image_format=ImageFormat(8, 8))
    known = {x.tobytes() for name in data.class_names for x in examples(data, name)}
    assert len(known) == 4 * N_IMAGES
    inputs, query_y = next(iter(data.episodes(4, 1, 2, meta_batch_size=2)))
    assert inputs["support_x"].shape == (2, 4, 8, 8, 3)
    for i in range(2):
        drawn = np.concatenate([inputs["support_x"][i], inputs["query_x"][i]])
        assert {x.tobytes() for x in drawn} == known
    assert query_y.shape == (2, 8)


def test_splits_of_a_folder_are_disjoint_and_cover_all(image_folder: Path) -> None:
    names = [name for part in PARTS for name in load(image_folder, split=part).class_names]
    assert sorted(names) == load(image_folder).class_names


def test_folders_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No such folder: .*missing"):
        load(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"No such folder: .*missing"):
        load(str(tmp_path / "missing"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"No such folder: .*file"):
        load(tmp_path / "file")


def test_a_folder_without_classes_is_told(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"one sub-folder of images .*per class; .* no sub-folder"):
        load(tmp_path)


def test_classes_without_images_are_named(tmp_path: Path) -> None:
    for name in ("full", "bare"):
        (tmp_path / name).mkdir()
    Image.new("L", (5, 5)).save(tmp_path / "full" / "1.png")
    (tmp_path / "bare" / "1.txt").write_text("")
    with pytest.raises(ValueError, match=r"\.png, .*per class; \['bare'\] have none"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_refused_when_read(tmp_path: Path, suffix: str) -> None:
    for k in range(2):
        (tmp_path / f"{k}").mkdir()
        for i in range(2):
            path = tmp_path / f"{k}" / f"{i}.{suffix}"
            pixels = np.random.RandomState(i).randint(0, 256, (30, 30, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    data = load(tmp_path, image_format=ImageFormat(8, 8))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Invalid (PNG|JPEG) data"):
        next(iter(data.episodes(2, 1, 1, meta_batch_size=1)))


# === TensorFlow Datasets ===


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Eleven classes of three images in two splits; class and image are the red and green."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE: tuple[int | None, int | None, int] = (6, 5, 3)
    LABEL = "label"

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=self.SHAPE)
        label = tfds.features.ClassLabel(names=[f"name{k}" for k in range(11)])
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"image": image, self.LABEL: label})
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(2), "test": self._generate_examples(1)}

    def _generate_examples(self, n: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in range(11 * n):
            height, width = (size or 6 + i % 2 for size in self.SHAPE[:2])
            pixels = np.full((height, width, 3), (10 * (i % 11), i // 11 + n, 7), np.uint8)
            yield i, {"image": pixels, self.LABEL: i % 11}


class TfmetaTestFixed(Tiny):
    """All images have one size."""


class TfmetaTestVarying(Tiny):
    """The images differ in size."""

    SHAPE = (None, None, 3)


class TfmetaTestUnlabelled(Tiny):
    """There is no feature named "label"."""

    LABEL = "kind"


class TfmetaTestUnreachable(Tiny):
    """The download fails."""

    ERROR: Callable[[str], Exception] = tfds.download.DownloadError

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        raise self.ERROR("no route to host")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tfds")


def test_any_tfds_data_set_is_loaded_by_name(data_dir: Path) -> None:
    data = load("tfmeta_test_fixed", data_dir=data_dir, split="all")
    assert sorted(data.class_names) == sorted(f"name{k}" for k in range(11))
    assert data.example_shape == (6, 5, 3)
    for k in range(11):
        x = examples(data, f"name{k}")
        assert x.shape == (3, 6, 5, 3), "the data set's own splits are joined"
        np.testing.assert_array_equal(x[..., 0], np.full((3, 6, 5), np.float32(10 * k) / 255))
        np.testing.assert_allclose(np.sort(x[:, 0, 0, 1]) * 255, [1, 2, 3], rtol=1e-6)


def test_splits_of_a_tfds_data_set_are_disjoint_and_cover_all(data_dir: Path) -> None:
    parts = [load("tfmeta_test_fixed", data_dir=data_dir, split=part) for part in PARTS]
    assert [len(part) for part in parts] == [7, 2, 2]
    assert len({name for part in parts for name in part.class_names}) == 11
    assert load("tfmeta_test_fixed", data_dir=data_dir).class_names == parts[0].class_names


def test_a_tfds_data_set_is_resized(data_dir: Path) -> None:
    data = load("tfmeta_test_fixed", data_dir=data_dir, image_size=(9, 4))
    assert data.example_shape == data.image_format.shape == (9, 4, 3)
    assert examples(data, data.class_names[0]).shape == (3, 9, 4, 3)


def test_images_that_differ_in_size_need_one(data_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"differ in size: give image_size=\(height, width\)"):
        load("tfmeta_test_varying", data_dir=data_dir)
    data = load("tfmeta_test_varying", data_dir=data_dir, split="all", image_size=(7, 7))
    x = examples(data, "name3")
    np.testing.assert_array_equal(x[..., 0], np.full((3, 7, 7), np.float32(30) / 255))


def test_a_tfds_data_set_without_labels_is_told(data_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"has the features \['image', 'kind'\].*pass arrays"):
        load("tfmeta_test_unlabelled", data_dir=data_dir)


@pytest.mark.parametrize(
    "error", [tfds.download.DownloadError, OSError, ConnectionResetError, TimeoutError]
)
def test_what_cannot_be_downloaded_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setattr(TfmetaTestUnreachable, "ERROR", error)
    for _ in range(2):  # A failed attempt leaves nothing that passes for the data set.
        with pytest.raises(ConnectionError, match="could not be downloaded") as told:
            load("tfmeta_test_unreachable", data_dir=tmp_path)
        for part in (
            "'tfmeta_test_unreachable'",
            str(tmp_path),
            error.__name__,
            "no route to host",
        ):
            assert part in str(told.value)
        assert "Give data_dir=, or set TFDS_DATA_DIR" in str(told.value)


def test_omniglot_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise tfds.download.DownloadError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(ConnectionError, match=r"'omniglot' is not in .*TFDS_DATA_DIR"):
        load("omniglot", data_dir=tmp_path)


# === Omniglot ===


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
        patch.setattr(sources, "_read", blank)
        return {
            split: set(load("omniglot", split=split, **options).class_names)
            for split in (*PARTS, "all")
        }


def characters(data: ClassDataset) -> set[str]:
    return {name.split("/")[0] for name in data.class_names}


def alphabets(names: set[str]) -> set[str]:
    return {name.rsplit("_", 1)[0] for name in names}


def test_omniglot_has_1100_100_and_423_characters_in_four_rotations(
    omniglot: dict[str, ClassDataset],
) -> None:
    for data, n in zip(omniglot.values(), (1100, 100, 423), strict=True):
        assert len(characters(data)) == n
        assert set(data.class_names) == {
            name + turn for name in characters(data) for turn in ("", "/90", "/180", "/270")
        }


def test_omniglot_has_twenty_drawings_of_each(omniglot: dict[str, ClassDataset]) -> None:
    for data in omniglot.values():
        assert {len(rows) for rows in data.rows} == {20}
        assert data.example_shape == data.image_format.shape == (28, 28, 1)


def test_no_character_of_a_split_is_in_another_however_turned(
    omniglot: dict[str, ClassDataset],
) -> None:
    joined = set().union(*(characters(data) for data in omniglot.values()))
    assert len(joined) == 1100 + 100 + 423 == sum(len(characters(d)) for d in omniglot.values())


def test_ink_is_one_on_paper_zero(omniglot: dict[str, ClassDataset]) -> None:
    for data in omniglot.values():
        x = np.concatenate([examples(data, name) for name in data.class_names[::37]])
        assert (x.min(), x.max()) == (0, 1)
        assert 0.02 < x.mean() < 0.2
        assert (np.median(x, axis=(1, 2, 3)) < 0.1).all(), "most of every drawing is paper"
        assert (x.max(axis=(1, 2, 3)) > 0.5).all(), "and none is empty"


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

    monkeypatch.setattr(ImageFormat, "from_bytes", counted)
    x, y = sources._read(builder, ("train", "test"), names, ImageFormat(28, 28, 1))
    assert np.bincount(y).tolist() == [20, 20, 20]
    assert (x.shape, len(decoded)) == ((60, 28, 28, 1), 60)


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
