"""Tables and images from files, as the command line reads them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfmeta.data import ImageFormat
from tfmeta.data.images import IMAGE_SUFFIXES
from tfmeta.data.inputs import image_files, read_csv, read_images

# === Tables ===


def test_a_table_is_read_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("1,2.5\n-3e2,4\n")
    table = read_csv(path)
    assert table.dtype == np.float32
    assert table.tolist() == [[1, 2.5], [-300, 4]]
    path.write_text("7\n")
    assert read_csv(path).tolist() == [[7]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no examples"),
        ("a,b\n1,2\n", "must be a CSV file of numbers without a header"),
        ("1,2\n3\n", "must be a CSV file of numbers without a header"),
        ("1,nan\n", "must be finite"),
        ("1,1e60\n", "must be finite"),
    ],
)
def test_a_bad_table_is_told(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"table\.csv .*{message}|in .*table\.csv {message}"):
        read_csv(path)


# === Images ===


def test_all_images_below_a_folder_are_found(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("b.PNG", "a/1.jpg", "a/deep/2.gif", "a/notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = [file.relative_to(tmp_path).as_posix() for file in image_files(tmp_path)]
    assert found == ["a/1.jpg", "a/deep/2.gif", "b.PNG"]


def test_a_single_image_is_found(tmp_path: Path) -> None:
    for suffix in IMAGE_SUFFIXES:
        path = tmp_path / f"image{suffix.upper()}"
        path.write_bytes(b"")
        assert image_files(path) == [path]


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No such file or folder: .*none\.png"):
        image_files(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"has no images \(\.png, "):
        image_files(tmp_path)


def test_a_kind_that_is_not_read_is_told_and_not_skipped_silently(tmp_path: Path) -> None:
    for name in ("1.webp", "2.HEIC", "3.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"1\.webp .*expected one of \.png, .* Convert it"):
        image_files(tmp_path / "1.webp")
    with pytest.warns(UserWarning, match=r"Skipped 2 image\(s\) in .*, such as 1\.webp: .*\.png"):
        assert image_files(tmp_path) == [tmp_path / "3.png"]


def test_images_are_read_as_in_training(tmp_path: Path) -> None:
    files = []
    for i, level in enumerate((0, 51, 255)):
        files.append(tmp_path / f"{i}.png")
        Image.new("RGB", (3 + i, 4), (level, 0, 255)).save(files[-1])
    x = read_images(files, ImageFormat(4, 5))
    assert (x.shape, x.dtype) == ((3, 4, 5, 3), np.float32)
    expected = np.broadcast_to(np.float32([[[[0, 0, 1]]], [[[0.2, 0, 1]]], [[[1, 0, 1]]]]), x.shape)
    np.testing.assert_array_equal(x, expected)


def test_a_broken_image_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ValueError, match=r"broken\.png is broken, or not an image"):
        read_images([path], ImageFormat(4, 5))
