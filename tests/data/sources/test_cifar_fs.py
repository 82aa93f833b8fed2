"""CIFAR-FS is CIFAR-100, from TensorFlow Datasets, in the published split."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfmeta.data import ImageFormat, load
from tfmeta.data.sources.cifar_fs import CIFAR_FS

SIZES = {"train": 64, "validation": 16, "test": 20}


def test_the_split_is_of_all_labels_of_cifar100_and_each_once(cifar100_names: list[str]) -> None:
    assert {part: len(names) for part, names in CIFAR_FS.items()} == SIZES
    assert sorted(name for names in CIFAR_FS.values() for name in names) == cifar100_names


@pytest.mark.parametrize("split", [*SIZES, "all"])
def test_classes_of_the_split_have_their_images_of_both_halves(
    cifar100_dir: Path, cifar100_names: list[str], split: str
) -> None:
    data = load("cifar_fs", split=split, data_dir=cifar100_dir)
    assert len(data) == SIZES.get(split, 100)
    assert set(data.class_names) == set(CIFAR_FS.get(split, cifar100_names))
    assert data.example_shape == (32, 32, 3)
    assert data.image_format == ImageFormat(32, 32)
    assert data.source == {"name": "cifar_fs", "split": split}
    for name, rows in zip(data.class_names, data.rows, strict=True):
        red, green, blue = np.moveaxis(255 * data.fetch(tf.constant(rows)).numpy(), -1, 0)
        assert red.shape == (6, 32, 32)
        np.testing.assert_allclose(red, cifar100_names.index(name), atol=1e-4)
        by_image = [[0], [40], [80], [120], [160], [200]]
        np.testing.assert_allclose(np.unique(green.reshape(6, -1), axis=0)[:, :1], by_image)
        assert blue.std() > 60
