"""The parts of an episode that are drawn separately, and whether there are enough examples."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfmeta.data.groups import Groups, check_groups, rows_of_groups


class EpisodePart(NamedTuple):
    """Examples that are drawn together, without replacement."""

    option: str  # of `episodes`, by which their number is set
    rows: list[np.ndarray]  # of each class
    n_examples: int  # of each class in an episode
    of: str = ""  # which examples of a class these are, for errors


def parts_of_episodes(
    class_names: Sequence[str],
    rows: list[np.ndarray],
    groups: list[np.ndarray] | None,
    sizes: Mapping[str, int],
    support_groups: Groups,
    query_groups: Groups,
    labelled_fraction: float | None,
) -> list[EpisodePart]:
    """Returns the parts of an episode, in the order support set, queries, unlabelled examples.

    What may come from the same rows is drawn together, as one part.

    Args:
        class_names: sequence of str. The names of all classes.
        rows: list of int arrays. The rows of each class.
        groups: list of str arrays, or None. The group of each row.
        sizes: mapping from "n_shot", "n_query" and "n_unlabelled" to int. Examples per class.
        support_groups: sequence of str, or None. See `ClassDataset.episodes`.
        query_groups: sequence of str, or None. See `ClassDataset.episodes`.
        labelled_fraction: float or None. See `ClassDataset.episodes`.

    Raises:
        ValueError: If groups are chosen that there are not, or that are in both, or together with
            unlabelled examples.
    """
    n_shot, n_query, n_unlabelled = sizes["n_shot"], sizes["n_query"], sizes["n_unlabelled"]
    chooses_groups = support_groups is not None or query_groups is not None
    if chooses_groups and (n_unlabelled or labelled_fraction is not None):
        raise ValueError(
            "Unlabelled examples cannot be drawn by groups: leave support_groups and query_groups "
            "out, or n_unlabelled and labelled_fraction."
        )
    if chooses_groups:
        support, query = check_groups(groups, support_groups, query_groups)
        of = " of the chosen groups"
        return [
            EpisodePart("n_shot", rows_of_groups(rows, groups, support), n_shot, of),
            EpisodePart("n_query", rows_of_groups(rows, groups, query), n_query, of),
        ]
    if labelled_fraction is None:
        option = "n_shot + n_query" + (" + n_unlabelled" if n_unlabelled else "")
        return [EpisodePart(option, rows, n_shot + n_query + n_unlabelled)]
    labelled, others = split_by_label(class_names, rows, labelled_fraction)
    parts = [EpisodePart("n_shot + n_query", labelled, n_shot + n_query, " with labels")]
    if n_unlabelled:
        parts.append(EpisodePart("n_unlabelled", others, n_unlabelled, " without labels"))
    return parts


def split_by_label(
    class_names: Sequence[str], rows: list[np.ndarray], labelled_fraction: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns those rows of each class whose labels are used, and all others.

    Which ones these are depends on the name of the class and the number of its rows alone.

    Args:
        class_names: sequence of str. The names of all classes.
        rows: list of int arrays. The rows of each class.
        labelled_fraction: float. The fraction of labelled rows, rounded; at least one of each
            class.

    Raises:
        ValueError: If the fraction is not between 0 and 1.

    Example:

    >>> split_by_label(["a", "b"], [np.arange(5), np.arange(10, 12)], 0.4)[0]
    [array([3, 4]), array([11])]
    """
    is_number = isinstance(labelled_fraction, int | float) and not isinstance(
        labelled_fraction, bool
    )
    if not is_number or not 0 < labelled_fraction < 1:
        raise ValueError(
            "labelled_fraction must be a number between 0 and 1, or None for labels of all; got "
            f"{labelled_fraction!r}."
        )
    labelled, others = [], []
    for name, of_class in zip(class_names, rows, strict=True):
        order = np.random.default_rng(zlib.crc32(name.encode())).permutation(len(of_class))
        n_labelled = max(1, round(labelled_fraction * len(of_class)))
        labelled.append(of_class[order[:n_labelled]])
        others.append(of_class[order[n_labelled:]])
    return labelled, others


def check_enough(class_names: Sequence[str], n_way: int, parts: Sequence[EpisodePart]) -> None:
    """Raises a ValueError if there are too few classes, or a class has too few examples.

    Args:
        class_names: sequence of str. The names of all classes.
        n_way: int. Classes per episode.
        parts: sequence of EpisodePart. What `parts_of_episodes` returned.
    """
    if len(class_names) < n_way:
        raise ValueError(
            f"n_way={n_way} needs at least {n_way} classes, but this data set has "
            f"{len(class_names)}. Lower n_way or add classes."
        )
    for option, rows_of_classes, needed, of in parts:
        small = [
            f"{name!r} has {len(rows)}"
            for name, rows in zip(class_names, rows_of_classes, strict=True)
            if len(rows) < needed
        ]
        if small:
            advice = {
                " of the chosen groups": (" or choose more groups", ", groups"),
                " with labels": (" or raise labelled_fraction", ""),
                " without labels": (" or lower labelled_fraction", ""),
            }
            more, groups = advice.get(of, ("", ""))
            raise ValueError(
                f"{option} = {needed} examples{of} are needed in each class, but "
                f"{len(small)} of {len(class_names)} have fewer: {', '.join(small[:3])}. Lower "
                f"{option.replace('+', 'or')}{more}, or use .drop_small_classes({needed}{groups})."
            )
