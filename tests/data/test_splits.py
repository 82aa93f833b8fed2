"""Invariants of the splits by class."""

from typing import Any

import numpy as np
import pytest

from tfmeta.data import ClassDataset, load
from tfmeta.data.splits import check_split, proportional_sizes, split_classes

PARTS = ("train", "validation", "test")
NAMES = [f"class {i}" for i in range(50)]


def test_splits_are_disjoint_and_cover_all() -> None:
    parts = [split_classes(NAMES, split, (30, 8)) for split in PARTS]
    assert [len(part) for part in parts] == [30, 8, 12]
    joined = sorted(name for part in parts for name in part)
    assert joined == split_classes(NAMES, "all", (30, 8)) == sorted(NAMES)


def test_splits_do_not_depend_on_the_order_of_names() -> None:
    for split in (*PARTS, "all"):
        assert split_classes(NAMES[::-1], split, (30, 8)) == split_classes(NAMES, split, (30, 8))


def test_splits_are_drawn_and_not_cut_by_name() -> None:
    assert split_classes(NAMES, "train", (30, 8)) != sorted(NAMES)[:30]


def test_splits_are_the_same_for_ever() -> None:
    # Worked out apart from the code: positions by the frozen RandomState(0).permutation(10).
    assert np.random.RandomState(0).permutation(10).tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    digits = [str(i) for i in range(10)]
    assert split_classes(digits, "train", (4, 2)) == ["2", "4", "8", "9"]
    assert split_classes(digits, "validation", (4, 2)) == ["1", "6"]
    assert split_classes(digits, "test", (4, 2)) == ["0", "3", "5", "7"]


@pytest.mark.parametrize("split", ["dev", "Train", "", None])
def test_unknown_splits_are_told(split: Any) -> None:
    message = rf"split must be one of train, validation, test, all; got {split!r}"
    for check in (check_split, lambda s: split_classes(NAMES, s, (30, 8))):
        with pytest.raises(ValueError, match=message):
            check(split)


def test_proportions_are_those_of_mini_imagenet_and_cifar_fs() -> None:
    assert proportional_sizes(100) == [64, 16]
    assert proportional_sizes(100, 0.7, 0.1) == [70, 10]


@pytest.mark.parametrize("n_classes", range(1, 40))
def test_proportional_sizes_never_exceed_the_classes(n_classes: int) -> None:
    train, validation = proportional_sizes(n_classes)
    assert train >= 0
    assert validation >= 0
    assert train + validation <= n_classes


# === Of data sets ===


def test_splits_of_arrays_are_disjoint_and_cover_all() -> None:
    y = np.repeat(np.arange(25), 2)
    parts = {split: load((y[:, None], y), split=split) for split in (*PARTS, "all")}
    assert [len(parts[split]) for split in PARTS] == [16, 4, 5]
    names = [name for split in PARTS for name in parts[split].class_names]
    assert sorted(names) == sorted(parts["all"].class_names) == sorted(map(str, range(25)))
    for data in parts.values():
        for name, rows in zip(data.class_names, data.rows, strict=True):
            assert (data.fetch(rows) == int(name)).numpy().all()


def test_digits_have_four_two_and_four_classes() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    parts: list[ClassDataset] = [load("digits", split=split) for split in PARTS]
    assert [len(part) for part in parts] == [4, 2, 4]
    names = [name for part in parts for name in part.class_names]
    assert sorted(names) == [str(k) for k in range(10)]
    assert len(load("digits")) == 4, "the default is the training split"
    assert sum(len(rows) for part in parts for rows in part.rows) == 1797
