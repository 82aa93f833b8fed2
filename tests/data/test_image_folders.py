"""Which files of a folder are images, by one rule; and what is said about the others."""

import os
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from tfmeta.data.image_folders import Skipped, find_classes, find_images, image_files

IMAGES = ["a/1.png", "a/2.JPG", "a/deep/3.webp", "b/1.tif", "b/old.png/4.gif"]
# What systems and tools leave, and by which words it is reported; None: it is not.
CLUTTER = {
    "a/._1.png": "hidden",
    "a/.hidden.png": "hidden",
    "a/.thumbnails/1.png": "hidden",
    "__MACOSX/a/._1.png": "system",
    "a/@eaDir/1.png/thumb.png": "system",
    "lost+found/1.png": "system",
    "b/__pycache__/x.png": "system",
    "$RECYCLE.BIN/1.png": "system",
    "a/~$1.png": "system",
    "a/notes.txt": "not read: .txt",
    "a/photo.xcf": "not read: .xcf",
    "b/README": "not read: no suffix",
    "loose.png": "not in a sub-folder",
    "a/.DS_Store": None,
    "a/Thumbs.db": None,
    "b/desktop.ini": None,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in [*IMAGES, *CLUTTER]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def names(files: list[Path], root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def test_images_are_found_and_nothing_else(root: Path) -> None:
    classes, skipped = find_classes(root)
    assert list(classes) == ["a", "b"]
    assert names([f for files in classes.values() for f in files], root) == IMAGES
    summary = skipped.summary()
    for name, reason in CLUTTER.items():
        entries = [part for part in summary.split("; ") if reason and reason in part]
        assert len(entries) == (reason is not None), name
    assert "3 hidden (a/._1.png, a/.hidden.png, …)" in summary
    for untold in (".DS_Store", "Thumbs.db", "desktop.ini"):
        assert untold not in summary


def test_prediction_finds_the_images_that_training_finds(root: Path) -> None:
    with pytest.warns(UserWarning, match=r"Skipped \d+ files and folders in ") as given:
        found = image_files(root)
    assert len(given) == 1
    # An image beside the classes belongs to none of them.
    assert names(found, root) == [*IMAGES, "loose.png"]
    assert names(image_files(root / "b" / "old.png"), root) == ["b/old.png/4.gif"]


def test_nothing_is_said_if_nothing_is_left_out(tmp_path: Path) -> None:
    for name in ("1.png", "sub/2.png", ".DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(image_files(tmp_path), tmp_path) == ["1.png", "sub/2.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and FIFOs")
def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    (elsewhere / "sub" / "1.png").write_bytes(b"")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to(elsewhere)
    (root / "file.png").symlink_to(elsewhere / "sub" / "1.png")
    (root / "gone.png").symlink_to(tmp_path / "nowhere")
    (elsewhere / "sub" / "up").symlink_to(elsewhere)
    os.mkfifo(root / "fifo.png")
    skipped = Skipped(root)
    assert names(find_images(root, skipped), root) == ["a/sub/1.png", "file.png"]
    summary = skipped.summary()
    assert "1 linked to a folder that it lies in (a/sub/up)" in summary
    assert "1 linked to nothing (gone.png)" in summary
    assert "1 no regular file (fifo.png)" in summary
    with pytest.raises(ValueError, match=r"fifo\.png cannot be read as an image"):
        image_files(root / "fifo.png")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8_are_written_as_escapes(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(b"")
    classes, _ = find_classes(tmp_path)
    assert list(classes) == [r"caf\xe9"]
    assert os.fsencode(classes[r"caf\xe9"][0]).endswith(b"caf\xe9/\xff.png")


def test_a_folder_of_unreadable_kinds_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.xcf").write_bytes(b"")
    for find in (lambda: find_classes(tmp_path), lambda: image_files(tmp_path)):
        with pytest.raises(ValueError, match=r"\.png.*Skipped: 1 of a kind .* \.xcf"):
            find()


@pytest.mark.parametrize("suffix", [".png", ".JPEG", ".bmp", ".gif", ".Tiff", ".webp"])
def test_a_single_image_is_found(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    path.write_bytes(b"")
    assert image_files(path) == [path]


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No such file or folder: .*none\.png"):
        image_files(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"has no images \(\.png, "):
        image_files(tmp_path)
    (tmp_path / "1.txt").write_text("")
    with pytest.raises(ValueError, match=r"1\.txt cannot be read .* \.png, .* Convert it"):
        image_files(tmp_path / "1.txt")


def test_heic_is_read_if_a_plugin_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.HEIC"
    path.write_bytes(b"")
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(ValueError, match=r"1\.HEIC cannot be read as an image"):
        image_files(path)
    monkeypatch.setitem(Image.OPEN, "HEIF", (lambda *_: None, None))
    assert image_files(path) == [path]
