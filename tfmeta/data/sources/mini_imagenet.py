"""miniImageNet, from the user's own folder."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.sources.from_files import dataset_of_files
from tfmeta.data.sources.from_tfds import Directory
from tfmeta.data.splits import check_split

_TABLES = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}


def mini_imagenet(split: str = "train", data_dir: Directory = None) -> ClassDataset:
    """miniImageNet: 100 classes of ImageNet with 600 images each; 84×84 RGB, decoded on the fly.

    Nothing is downloaded, because ImageNet's terms do not allow its images to be passed on. Bring
    them yourself, in the layout of Ravi and Larochelle, as the folder `mini_imagenet` of
    `data_dir`:

        mini_imagenet/train.csv, val.csv, test.csv    with the columns `filename` and `label`
        mini_imagenet/images/                         with these files, no folders

    The three CSV files are the split: as published, 64 classes for training, 16 for validation and
    20 for the test. Store the images as 84×84: others are resized each time that they are read,
    which takes several times as long.

    Args:
        split: str. "train", "validation", "test" or "all". Defaults to "train".
        data_dir: str, path or None. The directory that contains the folder `mini_imagenet`.
            Defaults to None: the environment variable `TFDS_DATA_DIR`, or else
            `~/tensorflow_datasets`.

    Raises:
        ValueError: If the folder, a CSV file, one of its columns or an image is missing, a class
            or an image is in two of the CSV files, an image is listed twice, or a file is broken.

    Reference:
        Vinyals et al. (2016), https://arxiv.org/abs/1606.04080; the split is that of Ravi,
        Larochelle (2017), https://openreview.net/forum?id=rJY0-Kcll.
    """
    check_split(split)
    directory = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(directory).expanduser() / "mini_imagenet"
    _check_layout(root)
    files_by_class = {part: _listed_images(root / table) for part, table in _TABLES.items()}
    _check_listed_once(root, files_by_class)
    chosen = {
        label: files
        for part, classes in files_by_class.items()
        if split in (part, "all")
        for label, files in classes.items()
    }
    images = root / "images"
    present = {path.name for path in images.iterdir()}
    absent = [name for files in chosen.values() for name in files if name not in present]
    if absent:
        raise ValueError(
            f"{len(absent)} images that the CSV files in {root} name are not in {images}, such as "
            f"{', '.join(absent[:3])}. Put them right into that folder, under these names."
        )
    return dataset_of_files(
        {label: [images / name for name in files] for label, files in chosen.items()},
        ImageFormat(84, 84),
        {"name": "mini_imagenet", "split": split},
    )


def _check_layout(root: Path) -> None:
    missing = [name for name in (*_TABLES.values(), "images/") if not (root / name).exists()]
    if missing:
        raise ValueError(
            f"miniImageNet is not in {root}: no {', '.join(missing)}. It cannot be downloaded, "
            "because ImageNet's terms do not allow its images to be passed on. Make that folder, "
            "with train.csv, val.csv and test.csv (columns filename and label; the split of Ravi "
            "and Larochelle) and a folder images/ with the files that they name; or give "
            "data_dir=, --data-dir or TFDS_DATA_DIR, the directory that contains the folder "
            "mini_imagenet."
        )


def _check_listed_once(root: Path, files_by_class: dict[str, dict[str, list[str]]]) -> None:
    table_of: dict[tuple[str, str], str] = {}
    for part, classes in files_by_class.items():
        for label, files in classes.items():
            for key in [("class", label), *(("image", name) for name in files)]:
                if key in table_of:
                    raise ValueError(
                        f"The {key[0]} {key[1]!r} is in {table_of[key]} and again in "
                        f"{_TABLES[part]} of {root}: no class may be in two splits, and no image "
                        "be listed twice."
                    )
                table_of[key] = _TABLES[part]


def _listed_images(table: Path) -> dict[str, list[str]]:
    """Reads a CSV file: for each class that it lists, the names of the image files."""
    try:
        # Excel writes a byte order mark at the start.
        text = table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} must be text in UTF-8: {error}. Save it as UTF-8.") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = rows.fieldnames or []
    if not {"filename", "label"} <= set(columns):
        raise ValueError(
            f"{table} must have the columns filename and label, named in its first line; "
            f"got {list(columns)}."
        )
    classes: dict[str, list[str]] = {}
    for row in rows:
        if not row["filename"] or not row["label"]:
            raise ValueError(
                f"{table}, line {rows.line_num}: expected a filename and a label; got "
                f"{row['filename']!r} and {row['label']!r}."
            )
        classes.setdefault(row["label"], []).append(row["filename"])
    if not classes:
        raise ValueError(f"{table} lists no images: a split needs classes.")
    return classes
