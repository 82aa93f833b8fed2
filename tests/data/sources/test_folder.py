"""Folders with one sub-folder of images per class."""

import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfmeta
from tfmeta.data import ClassDataset, ImageFormat, load
from tfmeta.data.decoding import UnreadableImageError

# What the fixture's clutter gives is the matter of one test.
pytestmark = pytest.mark.filterwarnings("ignore:Skipped:UserWarning")

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


def test_what_is_left_out_is_told_once(image_folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"Skipped 6 files and folders in ") as given:
        load(image_folder)
    assert len(given) == 1
    message = str(given[0].message)
    assert "4 of a kind that is not read: .txt (class 0/notes.txt, class 1/notes.txt, …)" in message
    assert "1 hidden (.hidden); " in message
    assert given[0].filename == __file__


def test_only_the_classes_of_the_split_are_checked(image_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(image_folder, root)
    train = load(root, split="train").class_names
    (other,) = set(load(root).class_names) - set(train)
    (root / other / "broken.png").write_bytes(b"")
    assert load(root, split="train").class_names == train
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        load(root)


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


# === Files that cannot be read ===


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """Two classes of three PNG files of noise each."""
    for k in range(2):
        (tmp_path / f"{k}").mkdir()
        for i in range(3):
            pixels = np.random.RandomState(3 * k + i).randint(0, 256, (30, 30, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{k}" / f"{i}.png")
    return tmp_path


def save(path: Path, kind: str) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (30, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, kind)


@pytest.mark.parametrize(
    ("keep", "kind"),
    [
        # An empty file is of no kind.
        pytest.param(keep, kind, marks=[pytest.mark.large] if keep == 0 and kind != "PNG" else [])
        for keep in (0, 0.5)
        for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
    ],
)
def test_a_cut_file_is_named_when_the_folder_is_loaded(
    two_classes: Path, keep: float, kind: str
) -> None:
    path = two_classes / "1" / "cut.png"
    save(path, kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(UnreadableImageError, match=r"1.cut\.png is broken, or not an image"):
        load(two_classes, image_format=ImageFormat(8, 8))
    with pytest.warns(UserWarning, match=r"Skipped 1 file .*: 1 that cannot be read \(1.cut\.png"):
        data = load(two_classes, image_format=ImageFormat(8, 8), on_error="skip")
    assert [len(rows) for rows in data.rows] == [3, 3]
    next(iter(data.episodes(2, 1, 2, meta_batch_size=1)))


def damage(path: Path) -> None:
    """Changes the pixels of a PNG file, so that their checksum is wrong."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(50)
    path.write_bytes(content)


@pytest.mark.parametrize("is_transparent", [False, True])
def test_a_file_whose_pixels_are_broken_is_named_by_the_episode(
    two_classes: Path, is_transparent: bool
) -> None:
    path = two_classes / "1" / "2.png"
    if is_transparent:  # Pillow decodes it, not TensorFlow.
        with Image.open(path) as image:
            image.convert("RGBA").save(path)
    damage(path)
    data = load(two_classes, image_format=ImageFormat(8, 8))
    episodes = data.episodes(2, 1, 2, meta_batch_size=1)
    with pytest.raises(UnreadableImageError, match=r"1.2\.png is broken, or not an image") as error:
        next(iter(episodes))
    assert not any(word in str(error.value) for word in ("node", "Op:", "DecodeImage"))
    with pytest.warns(UserWarning, match=r"1 that cannot be read \(1.2\.png\)"):
        kept = load(two_classes, image_format=ImageFormat(8, 8), on_error="skip")
    assert [len(rows) for rows in kept.rows] == [3, 2]


def test_a_file_that_went_after_loading_is_named(two_classes: Path) -> None:
    data = load(two_classes, image_format=ImageFormat(8, 8))
    (two_classes / "0" / "1.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"0.1\.png cannot be opened: No such file"):
        next(iter(data.episodes(2, 1, 2, meta_batch_size=1)))


def test_training_names_a_broken_file(two_classes: Path) -> None:
    damage(two_classes / "0" / "0.png")
    data = load(two_classes, image_format=ImageFormat(8, 8))
    learner = tfmeta.MAML(tfmeta.backbones.linear(2, (8, 8, 3)), inner_learning_rate=0.1)
    learner.compile("sgd", learner.default_loss())
    episodes = data.episodes(2, 1, 2, meta_batch_size=1)
    with pytest.raises(UnreadableImageError, match=r"0.0\.png is broken"):
        learner.fit(episodes, steps_per_epoch=1, shuffle=False, verbose=0)
    with pytest.raises(UnreadableImageError, match=r"0.0\.png is broken"):
        tfmeta.evaluate(learner, episodes, 2)


def test_skipping_leaves_out_classes_of_which_nothing_is_left(two_classes: Path) -> None:
    for name in ("bad", "bare"):
        (two_classes / name).mkdir()
    (two_classes / "bad" / "1.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"2 without images \(bare, bad\); 1 that cannot be read"):
        data = load(two_classes, on_error="skip")
    assert data.class_names == ["0", "1"]
    with pytest.raises(ValueError, match=r'on_error must be "raise" or "skip"; got \'ignore\''):
        load(two_classes, on_error="ignore")
    for path in two_classes.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="None of the 7 image files can be read"):
        load(two_classes, on_error="skip")


def test_all_kinds_of_files_are_read_side_by_side(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    steps = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    for name in "ab":
        (tmp_path / name).mkdir()
        steps.save(tmp_path / name / "1.png")
        steps.save(tmp_path / name / "2.png", exif=exif)
        steps.convert("RGBA").save(tmp_path / name / "3.png", exif=exif)
        steps.save(tmp_path / name / "4.tif")
        steps.convert("RGB").save(tmp_path / name / "5.webp", lossless=True, exif=exif)
    data = load(tmp_path, image_format=ImageFormat(8, 8, 1))
    upright = np.asarray(steps)[..., None] / np.float32(255)
    turned = np.rot90(upright, -1)
    for name in "ab":
        for ours, right in zip(
            examples(data, name), [upright, turned, turned, upright, turned], strict=True
        ):
            np.testing.assert_array_equal(ours, right)
    again = pickle.loads(pickle.dumps(data.fetch))
    np.testing.assert_array_equal(again(data.rows[0]), examples(data, "a"))
    # Also in the graph of a data set.
    inputs, _ = next(iter(data.episodes(2, 2, 3, meta_batch_size=1)))
    known = {upright.tobytes(), turned.tobytes()}
    assert {x.tobytes() for x in inputs["query_x"].numpy()[0]} <= known


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8_are_read(two_classes: Path) -> None:
    folder = two_classes / os.fsdecode(b"caf\xe9")
    (two_classes / "0").rename(folder)
    (folder / "0.png").rename(folder / os.fsdecode(b"\xff.png"))
    data = load(two_classes, image_format=ImageFormat(8, 8))
    assert data.class_names == ["1", r"caf\xe9"]
    next(iter(data.episodes(2, 1, 2, meta_batch_size=1)))
    damage(folder / os.fsdecode(b"\xff.png"))
    with pytest.raises(UnreadableImageError, match=r"caf\\xe9/\\xff\.png is broken"):
        next(iter(data.episodes(2, 1, 2, meta_batch_size=1)))
