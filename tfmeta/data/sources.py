"""Where classes of examples come from: TensorFlow Datasets, folders of images, arrays."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tfmeta.data.cifar_fs import CIFAR_FS
from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.splits import check_split, proportional_sizes, split_classes

Directory = str | os.PathLike[str] | None


def omniglot(
    split: str = "train",
    data_dir: Directory = None,
    protocol: Literal["random1200", "lake"] = "random1200",
    rotations: bool = True,
) -> ClassDataset:
    """Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each; 28×28, ink = 1.

    Args:
        split: "train", "validation", "test" or "all".
        data_dir: TensorFlow Datasets' directory.
        protocol: `"random1200"`, MAML's: 1,200 random characters for meta-training, of which 100
            are for validation, and 423 for the test. `"lake"`, the data set's own: the background
            alphabets, of which 5 are for validation, against the evaluation alphabets.
        rotations: Whether each character turned by 90, 180 and 270 degrees makes three further
            classes, in every split, as in the papers.

    Returns:
        A data set with classes named like "Greek_3" or "Greek_3/90".

    Reference:
        Lake, Salakhutdinov, Tenenbaum (2015), https://doi.org/10.1126/science.aab3050.
    """
    check_split(split)
    if protocol not in ("random1200", "lake"):
        raise ValueError(f'protocol must be "random1200" or "lake"; got {protocol!r}.')
    image_format = ImageFormat(28, 28, channels=1, invert=True)
    builder = _prepared("omniglot", data_dir)
    labels = builder.info.features["label"]
    if protocol == "random1200":
        chosen = split_classes(labels.names, split, (1100, 100))
    else:
        background, evaluation = (_names_in(builder, part) for part in ("train", "test"))
        alphabets = sorted({_alphabet(name) for name in background})
        held_out = split_classes(alphabets, "validation", (len(alphabets) - 5, 5))
        chosen = {
            "train": [n for n in background if _alphabet(n) not in held_out],
            "validation": [n for n in background if _alphabet(n) in held_out],
            "test": evaluation,
            "all": labels.names,
        }[split]
    names = list(labels.names)
    x, y = _read(builder, ("train", "test"), chosen, image_format)
    if rotations:
        x = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)])
        y = np.concatenate([y + k * len(names) for k in range(4)])
        names += [f"{name}/{90 * k}" for k in (1, 2, 3) for name in labels.names]
    source = {"name": "omniglot", "split": split, "protocol": protocol, "rotations": rotations}
    return ClassDataset.from_arrays(x, y, names, image_format, source)


def _alphabet(class_name: str) -> str:
    return class_name.rsplit("_", 1)[0]


def glyphs(split: str = "train", data_dir: Directory = None) -> ClassDataset:
    """Characters of many scripts, drawn in the fonts that ship with matplotlib; 28×28, ink = 1.

    The embedded default: made on first use in less than a minute, without any network.

    Args:
        split: "train", "validation", "test" or "all": 70 %, 10 % and 20 % of the classes.
        data_dir: TensorFlow Datasets' directory.
    """
    from tfmeta.data.glyphs import Glyphs

    check_split(split)
    builder = Glyphs(data_dir=data_dir)
    builder.download_and_prepare()
    image_format = ImageFormat(28, 28, channels=1, invert=True)
    names = builder.info.features["label"].names
    classes = split_classes(names, split, proportional_sizes(len(names), 0.7, 0.1))
    source = {"name": "glyphs", "split": split}
    return _of_classes(builder, ("all",), classes, image_format, source)


def digits(split: str = "train") -> ClassDataset:
    """The 1,797 handwritten digits of scikit-learn, 8×8, ink = 1.

    Args:
        split: "train" (four digits), "validation" (two), "test" (four) or "all".
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'The digits come with scikit-learn: pip install "tfmeta[digits]".'
        ) from error
    data = load_digits()
    whole = ClassDataset.from_arrays(
        data.images[..., None] / 16,
        data.target,
        [str(k) for k in range(10)],
        source={"name": "digits", "split": split},
    )
    return whole.subset(split_classes(whole.class_names, split, (4, 2)))


def mini_imagenet(split: str = "train", data_dir: Directory = None) -> ClassDataset:
    """miniImageNet: 100 classes of ImageNet with 600 images each; 84×84 RGB, decoded on the fly.

    Nothing is downloaded: ImageNet's terms do not let its images be passed on. You bring them, in
    the layout of Ravi and Larochelle, as the folder `mini_imagenet` of `data_dir`:

        mini_imagenet/train.csv, val.csv, test.csv    with the columns `filename` and `label`
        mini_imagenet/images/                         with the files that these name, no folders

    The three files are the split: published are 64 classes for training, 16 for validation and 20
    for the test. Store the images as 84×84: others are resized each time that they are read, which
    takes several times as long.

    Args:
        split: "train", "validation", "test" or "all".
        data_dir: The directory that `mini_imagenet` is in; defaults to TensorFlow Datasets' own.

    Raises:
        ValueError: If the folder, a CSV file, one of its columns or an image is missing, a class
            or an image is in two of the CSV files, or an image in one of them twice.

    Reference:
        Vinyals et al. (2016), https://arxiv.org/abs/1606.04080; the split is that of Ravi,
        Larochelle (2017), https://openreview.net/forum?id=rJY0-Kcll.
    """
    import tensorflow_datasets as tfds

    check_split(split)
    root = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / "mini_imagenet"
    images = root / "images"
    parts = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
    missing = [name for name in (*parts.values(), "images/") if not (root / name).exists()]
    if missing:
        raise ValueError(
            f"miniImageNet is not in {root}: no {', '.join(missing)}. It cannot be downloaded, for "
            "ImageNet's terms do not let its images be passed on. Make that folder, with "
            "train.csv, val.csv and test.csv (columns filename and label; the split of Ravi and "
            "Larochelle) and a folder images/ with the files that they name; or give data_dir=, "
            "--data-dir or TFDS_DATA_DIR, the directory that has the folder mini_imagenet."
        )
    listed = {part: _listed_images(root / name) for part, name in parts.items()}
    found_in: dict[tuple[str, str], str] = {}
    for part, classes in listed.items():
        for label, files in classes.items():
            for key in [("class", label), *(("image", name) for name in files)]:
                if key in found_in:
                    raise ValueError(
                        f"The {key[0]} {key[1]!r} is in {found_in[key]} and again in "
                        f"{parts[part]} of {root}: no class may be in two splits, and no image be "
                        "listed twice."
                    )
                found_in[key] = parts[part]
    chosen = {
        label: files
        for part, classes in listed.items()
        if split in (part, "all")
        for label, files in classes.items()
    }
    there = {path.name for path in images.iterdir()}
    absent = [name for files in chosen.values() for name in files if name not in there]
    if absent:
        raise ValueError(
            f"{len(absent)} images that the CSV files in {root} name are not in {images}, such as "
            f"{', '.join(absent[:3])}. Put them right into that folder, under these names."
        )
    return _of_files(
        list(chosen),
        [[images / name for name in files] for files in chosen.values()],
        ImageFormat(84, 84),
        {"name": "mini_imagenet", "split": split},
    )


def _listed_images(table: Path) -> dict[str, list[str]]:
    """From the classes that a CSV file lists to their images."""
    try:
        # Excel puts a byte order mark in front.
        text = table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{table} must be text in UTF-8: {error}. Save it again as that."
        ) from error
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


def cifar_fs(split: str = "train", data_dir: Directory = None) -> ClassDataset:
    """CIFAR-FS: the classes of CIFAR-100, split for few-shot learning; 32×32 RGB, 600 images each.

    Args:
        split: "train", "validation", "test" or "all": 64, 16 and 20 classes; see
            `tfmeta.data.cifar_fs`.
        data_dir: TensorFlow Datasets' directory, where `cifar100` is or will be.

    Reference:
        Bertinetto et al. (2019), https://arxiv.org/abs/1805.08136, section 4.2.
    """
    check_split(split)
    classes = [name for part in CIFAR_FS if split in (part, "all") for name in CIFAR_FS[part]]
    builder = _prepared("cifar100", data_dir)
    source = {"name": "cifar_fs", "split": split}
    # The splits by name, as of any data set of TensorFlow Datasets.
    return _of_classes(builder, ("test", "train"), classes, ImageFormat(32, 32), source)


def tfds_dataset(
    name: str,
    split: str = "train",
    data_dir: Directory = None,
    image_size: tuple[int, int] | None = None,
) -> ClassDataset:
    """Any TensorFlow Datasets data set with images and a label, split by class.

    Its own splits are joined: a few-shot learner is tested on classes it has never seen, which
    those of ordinary classification data sets do not provide.

    Args:
        name: Name of the data set, for example "cifar100".
        split: "train", "validation", "test" (64 %, 16 % and 20 % of the classes) or "all".
        data_dir: TensorFlow Datasets' directory.
        image_size: (height, width) to resize to; needed where the images differ in size.

    Raises:
        ValueError: If the data set is unknown, has no image or label, or its images differ in
            size and `image_size` is not given.
    """
    check_split(split)
    builder = _prepared(name, data_dir)
    features: dict[str, Any] = dict(builder.info.features.items())
    label: Any = features.get("label")
    if "image" not in features or not hasattr(label, "names"):
        raise ValueError(
            f"{name!r} has the features {sorted(features)}; an image and a class label named "
            '"image" and "label" are needed. Load it yourself and pass arrays (x, y).'
        )
    height, width, channels = features["image"].shape
    if image_size is not None:
        height, width = image_size
    if height is None or width is None:
        raise ValueError(f"The images of {name!r} differ in size: give image_size=(height, width).")
    image_format = ImageFormat(height, width, channels or 3)
    x, y = _read(builder, sorted(builder.info.splits), label.names, image_format)
    whole = ClassDataset.from_arrays(
        x, y, label.names, image_format, {"name": name, "split": split}
    )
    return whole.subset(split_classes(whole.class_names, split, proportional_sizes(len(whole))))


def folder(
    path: str | os.PathLike[str],
    split: str = "all",
    image_format: ImageFormat | None = None,
) -> ClassDataset:
    """A folder with one sub-folder of images per class; decoded on the fly.

    Args:
        path: The folder. Images are its sub-folders' PNG, JPEG, BMP and GIF files.
        split: "all" classes, or "train", "validation", "test" (64 %, 16 % and 20 % of them).
        image_format: Size, channels and colour that images are brought to; defaults to 84×84 RGB.

    Raises:
        ValueError: If there is no such folder, no sub-folder in it, or a sub-folder without
            images.
    """
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"No such folder: {root}.")
    classes = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = [sorted(f for f in c.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES) for c in classes]
    empty = [c.name for c, images in zip(classes, files, strict=True) if not images]
    if not classes or empty:
        raise ValueError(
            f"{root} must have one sub-folder of images ({', '.join(IMAGE_SUFFIXES)}) per class; "
            + (f"{empty[:3]} have none." if classes else "it has no sub-folder.")
        )
    names = [c.name for c in classes]
    source = {"name": root.name, "split": split}
    whole = _of_files(names, files, image_format or ImageFormat(84, 84), source)
    return whole.subset(split_classes(names, split, proportional_sizes(len(names))))


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def arrays(
    x: Any, y: Any, split: str = "all", class_names: list[str] | None = None
) -> ClassDataset:
    """Arrays x `[N, *x]` and integer labels y `[N]`.

    Args:
        x: uint8 is scaled to [0, 1]; other types become float32 as they are.
        y: Labels.
        split: "all" classes, or "train", "validation", "test" (64 %, 16 % and 20 % of them).
        class_names: Names of the labels 0, 1, ….
    """
    whole = ClassDataset.from_arrays(x, y, class_names, source={"name": "arrays", "split": split})
    return whole.subset(split_classes(whole.class_names, split, proportional_sizes(len(whole))))


# === Image files ===


def _of_files(
    names: list[str],
    files: Sequence[Sequence[Path]],
    image_format: ImageFormat,
    source: dict[str, Any],
) -> ClassDataset:
    """Classes of image files, read when an episode needs them."""
    with tf.device("CPU"):
        paths = tf.constant([str(f) for images in files for f in images])

    def read(row: tf.Tensor) -> tf.Tensor:
        return image_format.from_bytes(tf.io.read_file(paths[row]))

    def fetch(rows: tf.Tensor) -> tf.Tensor:
        pixels = tf.map_fn(read, rows, fn_output_signature=tf.uint8, parallel_iterations=16)
        return tf.cast(pixels, tf.float32) / 255

    ends = np.cumsum([len(images) for images in files])
    rows = np.split(np.arange(ends[-1]), ends[:-1])
    return ClassDataset(names, rows, fetch, image_format.shape, image_format, source)


# === TensorFlow Datasets ===


def _prepared(name: str, data_dir: Directory) -> Any:
    """The builder of a TensorFlow Datasets data set, downloaded and prepared if need be."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = ", ".join(sorted(BY_NAME))
        raise ValueError(
            f"No data set named {name!r}: expected one of {known}, sinusoid, linear, the name of "
            "a TensorFlow Datasets data set, a folder with one sub-folder of images per class, or "
            "arrays (x, y)."
        ) from error
    if not builder.data_path.exists():
        try:
            builder.download_and_prepare()
        except (OSError, tfds.download.DownloadError) as error:
            raise ConnectionError(
                f"{name!r} is not in {builder.data_path.parent.parent} and could not be downloaded "
                f"({type(error).__name__}: {error}). Give data_dir=, or set TFDS_DATA_DIR, to a "
                "directory of TensorFlow Datasets that has it."
            ) from error
    return builder


def _examples(builder: Any, split: str, **features: Any) -> tf.data.Dataset:
    """The examples of a split, in their order, with these features; images as they are encoded."""
    import tensorflow_datasets as tfds

    undecoded = {"image": tfds.decode.SkipDecoding()} if "image" in features else None
    data: tf.data.Dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(features, decoders=undecoded),
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return data


def _names_in(builder: Any, split: str) -> list[str]:
    """The names of the classes that a split has examples of, in the order of their labels."""
    names = builder.info.features["label"].names
    batches = _examples(builder, split, label=True).batch(1024).as_numpy_iterator()
    labels = np.concatenate([batch["label"] for batch in batches])
    return [names[label] for label in np.unique(labels)]


def _read(
    builder: Any, splits: Sequence[str], classes: Sequence[str], image_format: ImageFormat
) -> tuple[np.ndarray, np.ndarray]:
    """Images of these classes, `[N, height, width, channels]` uint8, and their labels `[N]`."""
    chosen = tf.constant(np.isin(builder.info.features["label"].names, classes))

    def is_chosen(example: dict[str, tf.Tensor]) -> tf.Tensor:
        return chosen[example["label"]]

    def decode(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return image_format.from_bytes(example["image"]), example["label"]

    batches = [
        batch
        for split in splits
        for batch in _examples(builder, split, image=True, label=True)
        .filter(is_chosen)  # Before they are decoded, which takes most of the time.
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(1024)
        .as_numpy_iterator()
    ]
    x, y = zip(*batches, strict=True)
    return np.concatenate(x), np.concatenate(y)


def _of_classes(
    builder: Any,
    splits: Sequence[str],
    classes: Sequence[str],
    image_format: ImageFormat,
    source: dict[str, Any],
) -> ClassDataset:
    """These classes, in this order, of a data set with an image and a label."""
    x, y = _read(builder, splits, classes, image_format)
    names = builder.info.features["label"].names
    return ClassDataset.from_arrays(x, y, names, image_format, source).subset(classes)


BY_NAME: dict[str, Callable[..., ClassDataset]] = {
    "omniglot": omniglot,
    "glyphs": glyphs,
    "digits": digits,
    "mini_imagenet": mini_imagenet,
    "cifar_fs": cifar_fs,
}
