"""Splits by class: no class of one split occurs in another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "validation", "test", "all")


def check_split(split: str) -> None:
    """Raises a ValueError unless `split` is the name of a split."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}.")


def split_classes(class_names: Sequence[str], split: str, sizes: Sequence[int]) -> list[str]:
    """Draws the classes of a split by a fixed seed over the sorted names.

    NumPy's `RandomState` is frozen, so a split is the same on every machine and version.

    Args:
        class_names: sequence of str. All classes.
        split: str. "train", "validation", "test" or "all".
        sizes: (int, int). Numbers of classes for training and validation; the others are for the
            test.

    Returns:
        Sorted names.

    Raises:
        ValueError: If there is no such split.

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
    """Computes sizes for `split_classes`.

    Args:
        n_classes: int. Number of all classes.
        train: float. Share of the classes for training. Defaults to 0.64, as in miniImageNet and
            CIFAR-FS.
        validation: float. Share of the classes for validation. Defaults to 0.16, likewise.
    """
    return [round(train * n_classes), round(validation * n_classes)]
