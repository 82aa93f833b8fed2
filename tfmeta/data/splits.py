"""Splits by class: no class of one split occurs in another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "validation", "test", "all")


def check_split(split: str) -> None:
    """Raises a ValueError unless it is the name of a split."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}.")


def split_classes(class_names: Sequence[str], split: str, sizes: Sequence[int]) -> list[str]:
    """The classes of a split, drawn by a fixed seed over the sorted names.

    NumPy's `RandomState` is frozen, so that a split is the same everywhere, for ever.

    Args:
        class_names: All classes.
        split: "train", "validation", "test" or "all".
        sizes: Number of classes for training and validation; the others are for the test.

    Returns:
        Sorted names.

    Example:

    >>> [split_classes("abcdef", s, (3, 1)) for s in ("train", "validation", "test")]
    [['b', 'c', 'f'], ['d'], ['a', 'e']]
    """
    check_split(split)
    names = sorted(class_names)
    if split == "all":
        return names
    shuffled = [names[i] for i in np.random.RandomState(0).permutation(len(names))]
    n_train, n_validation = sizes
    return sorted(
        {
            "train": shuffled[:n_train],
            "validation": shuffled[n_train : n_train + n_validation],
            "test": shuffled[n_train + n_validation :],
        }[split]
    )


def proportional_sizes(n_classes: int, train: float = 0.64, validation: float = 0.16) -> list[int]:
    """Sizes for `split_classes`; by default the proportions of miniImageNet and CIFAR-FS."""
    return [round(train * n_classes), round(validation * n_classes)]
