"""The parts of an episode that are drawn separately, and whether there are enough examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfmeta.data.groups import Groups, check_groups, rows_of_groups


class EpisodePart(NamedTuple):
    """Examples that are drawn together, without replacement."""

    option: str  # of `episodes`, by which their number is set
    rows: list[np.ndarray]  # of each class
    n_examples: int  # of each class in an episode


def parts_of_episodes(
    rows: list[np.ndarray],
    groups: list[np.ndarray] | None,
    n_shot: int,
    n_query: int,
    support_groups: Groups,
    query_groups: Groups,
) -> list[EpisodePart]:
    """Returns one part if support examples and queries are drawn from all rows, else two.

    Args:
        rows: list of int arrays. The rows of each class.
        groups: list of str arrays, or None. The group of each row.
        n_shot: int. Support examples per class.
        n_query: int. Queries per class.
        support_groups: sequence of str, or None. See `ClassDataset.episodes`.
        query_groups: sequence of str, or None. See `ClassDataset.episodes`.

    Raises:
        ValueError: If groups are chosen that there are not, or that are in both.
    """
    if support_groups is None and query_groups is None:
        return [EpisodePart("n_shot + n_query", rows, n_shot + n_query)]
    support, query = check_groups(groups, support_groups, query_groups)
    return [
        EpisodePart("n_shot", rows_of_groups(rows, groups, support), n_shot),
        EpisodePart("n_query", rows_of_groups(rows, groups, query), n_query),
    ]


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
    for option, rows_of_classes, needed in parts:
        small = [
            f"{name!r} has {len(rows)}"
            for name, rows in zip(class_names, rows_of_classes, strict=True)
            if len(rows) < needed
        ]
        if small:
            of_groups = "" if len(parts) == 1 else " of the chosen groups"
            more = "" if len(parts) == 1 else " or choose more groups"
            groups = "" if len(parts) == 1 else ", groups"
            raise ValueError(
                f"{option} = {needed} examples{of_groups} are needed in each class, but "
                f"{len(small)} of {len(class_names)} have fewer: {', '.join(small[:3])}. Lower "
                f"{option.replace('+', 'or')}{more}, or use .drop_small_classes({needed}{groups})."
            )
