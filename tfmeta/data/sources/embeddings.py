"""Embeddings, from files of the user's own or of LEO's authors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.embedding_files import read_embeddings
from tfmeta.data.sources.file_digest import file_digest
from tfmeta.data.sources.from_tfds import Directory
from tfmeta.data.splits import check_split

_FILES = {"train": "train_embeddings", "validation": "val_embeddings", "test": "test_embeddings"}


def embeddings(features: str, split: str = "train", data_dir: Directory = None) -> ClassDataset:
    """Vectors that an encoder made of images, grouped by class.

    Nothing is downloaded. The files are in the folder `embeddings` of `data_dir`, in the layout of
    LEO's authors, who give the embeddings of miniImageNet and tieredImageNet with their paper
    (http://storage.googleapis.com/leo-embeddings/embeddings.zip):

        embeddings/miniImageNet/center/train_embeddings.pkl
        embeddings/miniImageNet/center/val_embeddings.pkl
        embeddings/miniImageNet/center/test_embeddings.pkl

    Their pickles are read without running code. Files that `tfmeta.data.write_embeddings` wrote end
    with `.npz` instead.

    Args:
        features: str. The folder of the three files in `embeddings`, such as
            `"miniImageNet/center"`; or an absolute path.
        split: str. "train", "validation", "test" or "all". Defaults to "train".
        data_dir: str, path or None. The directory that contains the folder `embeddings`. Defaults
            to None: the environment variable `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.

    Raises:
        ValueError: If a file is missing, there twice or broken, a class is in two splits, or the
            vectors of two splits differ in length.

    Reference:
        Rusu et al. (2019), https://arxiv.org/abs/1807.05960, section 4.2 and its appendix.
    """
    check_split(split)
    directory = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = Path(directory).expanduser() / "embeddings" / features
    splits = list(_FILES) if split == "all" else [split]
    files = [_file(folder, _FILES[name]) for name in splits]
    parts = [read_embeddings(file) for file in files]
    shapes = {vectors.shape[1] for vectors, _ in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"The embeddings in {folder} must be of one length; got {sorted(shapes)} numbers."
        )
    classes = [set(names) for _, names in parts]
    if sum(map(len, classes)) > len(set.union(*classes)):
        raise ValueError(f"A class is in two of the files in {folder}: no class may be in two.")
    return ClassDataset.from_arrays(
        np.concatenate([vectors for vectors, _ in parts]),
        np.concatenate([names for _, names in parts]),
        source={"name": "embeddings", "features": features, "split": split},
        fingerprint=lambda: file_digest(splits, [[file] for file in files]),
    )


def _file(folder: Path, name: str) -> Path:
    found = [file for file in (folder / f"{name}.npz", folder / f"{name}.pkl") if file.is_file()]
    if len(found) != 1:
        raise ValueError(
            f"There must be one file of embeddings, {name}.npz or {name}.pkl, in {folder}; found "
            f"{len(found)}. Give data_dir=, --data-dir or TFDS_DATA_DIR, the directory that "
            "contains the folder embeddings."
        )
    return found[0]
