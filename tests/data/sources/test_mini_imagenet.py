"""miniImageNet is read from the user's folder, whose CSV files are the split."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfmeta.data import ClassDataset, ImageFormat, load

PARTS = {"train": range(6), "validation": range(6, 11), "test": range(11, 16)}
CSV = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}


def colours(images: tf.Tensor) -> np.ndarray:
    """Mean red and green, from 0 to 255, to the tens that the stand-in was made with."""
    means = 255 * images.numpy().mean(axis=(1, 2))[:, :2]
    rounded = 10 * np.round(means / 10)
    assert np.abs(means - rounded).max() < 3
    return rounded.astype(int)


@pytest.mark.parametrize("split", [*PARTS, "all"])
def test_classes_and_images_are_those_of_the_split_s_file(
    mini_imagenet_dir: Path, split: str
) -> None:
    data = load("mini_imagenet", split=split, data_dir=mini_imagenet_dir)
    expected = PARTS.get(split, range(16))
    assert sorted(data.class_names) == [f"n{k:08d}" for k in expected]
    assert data.example_shape == (84, 84, 3)
    assert data.image_format == ImageFormat(84, 84)
    assert data.source == {"name": "mini_imagenet", "split": split}
    for name, rows in zip(data.class_names, data.rows, strict=True):
        red = 40 + 10 * int(name[1:])
        images = data.fetch(tf.constant(rows))
        assert images.shape == (6, 84, 84, 3)
        assert colours(images).tolist() == [[red, 20 + 30 * i] for i in range(6)]


def test_episodes_of_a_split_have_its_classes_and_no_image_twice(mini_imagenet_dir: Path) -> None:
    data = load("mini_imagenet", split="test", data_dir=mini_imagenet_dir)
    inputs, query_y = next(iter(data.episodes(5, 1, 5, meta_batch_size=1)))
    support, query = (colours(inputs[x][0]) for x in ("support_x", "query_x"))
    drawn = {tuple(colour) for colour in np.concatenate([support, query])}
    assert drawn == {(40 + 10 * k, 20 + 30 * i) for k in PARTS["test"] for i in range(6)}
    red_of_label = dict(zip(inputs["support_y"][0].numpy(), support[:, 0], strict=True))
    assert [red_of_label[y] for y in query_y[0].numpy()] == query[:, 0].tolist()


def test_it_is_looked_for_where_tfds_keeps_its_data(
    mini_imagenet_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(mini_imagenet_dir))
    data: ClassDataset = load("mini_imagenet", split="validation")
    assert len(data) == 5
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with pytest.raises(ValueError, match="miniImageNet is not in") as error:
        load("mini_imagenet")
    assert str(tmp_path / "tensorflow_datasets" / "mini_imagenet") in str(error.value)


# === What users may get wrong ===


@pytest.fixture
def copy(mini_imagenet_dir: Path, tmp_path: Path) -> Path:
    """The folder `mini_imagenet` of a data directory, to be spoilt."""
    return Path(
        shutil.copytree(mini_imagenet_dir / "mini_imagenet", tmp_path / "data" / "mini_imagenet")
    )


def edited(change: Callable[[str], str], name: str = "train.csv") -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before

    return edit


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (shutil.rmtree, r"not in .*mini_imagenet: no train\.csv, val\.csv, test\.csv, images/\."),
        (lambda folder: shutil.rmtree(folder / "images"), r"no images/\. It cannot be downloaded"),
        (lambda folder: (folder / "val.csv").unlink(), r"no val\.csv\. It cannot be downloaded"),
        (
            edited(lambda text: text.replace("filename,label", "file,class")),
            r"train\.csv must have the columns filename and label.*got \['file', 'class'\]",
        ),
        (
            edited(lambda text: text.partition("\n")[2], "test.csv"),
            r"test\.csv must have the columns .*got \['n00000011\d{8}\.jpg', 'n00000011'\]",
        ),
        (edited(lambda text: ""), r"train\.csv must have the columns .*got \[\]"),
        (edited(lambda text: "filename,label\n"), r"train\.csv lists no images"),
        (
            lambda folder: (folder / "val.csv").write_bytes(
                "filename,label\nä.jpg,Bär".encode("latin-1")
            ),
            r"val\.csv must be text in UTF-8: .* Save it as UTF-8",
        ),
        (
            edited(lambda text: text.replace(",n00000002", ",", 1)),
            r"train\.csv, line 4: expected a filename and a label; got 'n\d+\.jpg' and ''",
        ),
        (
            edited(lambda text: text.replace(",n00000002", "", 1)),
            r"train\.csv, line 4: expected a filename and a label; got 'n\d+\.jpg' and None",
        ),
        (
            edited(lambda text: text.replace(",n00000012", ",n00000007"), "test.csv"),
            r"The class 'n00000007' is in val\.csv and again in test\.csv",
        ),
        (
            edited(lambda text: text + "n0000000000000000.jpg,n00000012\n", "test.csv"),
            r"The image 'n0000000000000000\.jpg' is in train\.csv and again in test\.csv",
        ),
        (
            edited(lambda text: text + text.splitlines()[-1]),
            r"The image 'n0000000500000005\.jpg' is in train\.csv and again in train\.csv",
        ),
        (
            edited(lambda text: text.replace("n00000003000", "x")),
            r"6 images .* are not in .*images, such as (x\d+\.jpg(, |\.)){3}",
        ),
        (
            lambda folder: (folder / "images" / "n0000000400000002.jpg").unlink(),
            r"1 images .*, such as n0000000400000002\.jpg\. Put them",
        ),
    ],
)
def test_what_is_wrong_with_the_folder_is_told(
    copy: Path, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(copy)
    with pytest.raises(ValueError) as error:
        load("mini_imagenet", data_dir=copy.parent)
    assert re.search(told, str(error.value)), error.value


def test_how_to_bring_the_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="miniImageNet is not in") as error:
        load("mini_imagenet", data_dir=tmp_path)
    for part in (
        str(tmp_path / "mini_imagenet"),
        "ImageNet's terms",
        "filename and label",
        "images/",
        "--data-dir",
        "TFDS_DATA_DIR",
    ):
        assert part in str(error.value)


def test_images_of_another_split_may_be_missing(copy: Path) -> None:
    for path in (copy / "images").glob("n0000000[0-5]*"):
        path.unlink()
    assert len(load("mini_imagenet", split="test", data_dir=copy.parent)) == 5
    with pytest.raises(ValueError, match=r"^36 images"):
        load("mini_imagenet", split="all", data_dir=copy.parent)


def test_files_of_excel_with_more_columns_are_read(copy: Path) -> None:
    for name in CSV.values():
        lines = (copy / name).read_text().splitlines()
        text = "\r\n".join(f"{i},{line}" for i, line in enumerate(lines))
        (copy / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(load("mini_imagenet", data_dir=copy.parent)) == 6
