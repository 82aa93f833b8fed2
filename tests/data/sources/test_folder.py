"""Folders with one sub-folder of images per class."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfmeta.data import ClassDataset, ImageFormat, load

PARTS = ("train", "validation", "test")
N_IMAGES = 3


def examples(data: ClassDataset, name: str) -> np.ndarray:
    return data.fetch(tf.constant(data.rows[data.class_names.index(name)])).numpy()


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


def test_a_folder_of_unseen_classes_can_be_loaded_whole(image_folder: Path) -> None:
    data = load(image_folder, split="all")
    assert data.class_names == [f"class {k}" for k in range(4)]
    assert data.source == {"name": image_folder.name, "split": "all"}


def test_images_of_a_kind_that_is_not_read_are_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (5, 5)).save(tmp_path / name / "1.png")
    Image.new("L", (5, 5)).save(tmp_path / "b" / "2.webp")
    with pytest.warns(UserWarning, match=r"Skipped 1 image\(s\) in .*b, such as 2\.webp"):
        assert [len(rows) for rows in load(tmp_path).rows] == [1, 1]


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
