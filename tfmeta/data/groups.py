"""Groups of examples across classes, such as the vendors that draw emoji."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Names of groups, or None for those that the other part of an episode leaves.
Groups = Sequence[str] | None


def rows_of_groups(
    rows: Sequence[np.ndarray], groups: Sequence[np.ndarray] | None, chosen: Sequence[str]
) -> list[np.ndarray]:
    """Returns the rows of each class that are in some groups.

    Args:
        rows: sequence of int arrays. The rows of each class.
        groups: sequence of str arrays, or None. The group of each row.
        chosen: sequence of str. Names of groups.

    Raises:
        ValueError: If the data set has no groups, or there is no such group.
    """
    if groups is None:
        raise ValueError(_NO_GROUPS)
    _check_names("groups", chosen, _names(groups))
    return [r[np.isin(g, list(chosen))] for r, g in zip(rows, groups, strict=True)]


def check_groups(
    groups: Sequence[np.ndarray] | None, support_groups: Groups, query_groups: Groups
) -> tuple[list[str], list[str]]:
    """Checks the groups of support sets and queries; if one is None, it is all the others.

    Args:
        groups: sequence of str arrays, or None. The group of each row of each class.
        support_groups: sequence of str, or None. Groups of the support examples.
        query_groups: sequence of str, or None. Groups of the queries.

    Returns:
        Groups of the support examples, and of the queries.

    Raises:
        ValueError: If the data set has no groups, there is no such group, or a group is in both.
    """
    if groups is None:
        raise ValueError(_NO_GROUPS)
    known = _names(groups)
    for option, value in (("support_groups", support_groups), ("query_groups", query_groups)):
        if value is not None:
            _check_names(option, value, known)
    support = [g for g in known if g not in (query_groups or ())]
    query = [g for g in known if g not in (support_groups or ())]
    support = support if support_groups is None else list(support_groups)
    query = query if query_groups is None else list(query_groups)
    shared = sorted(set(support) & set(query))
    if shared:
        raise ValueError(
            "No group may be in both support_groups and query_groups, or a query could be a "
            f"support example; got {', '.join(shared)} in both."
        )
    if not support or not query:
        raise ValueError(
            "support_groups and query_groups must leave a group for the other; got all of "
            f"{', '.join(known)}."
        )
    return support, query


_NO_GROUPS = (
    "Groups can be chosen only if the examples have groups, as those of emoji and icons do; these "
    "have none. Give groups= to ClassDataset.from_arrays, or choose none."
)


def _names(groups: Sequence[np.ndarray]) -> list[str]:
    return sorted({str(group) for of_class in groups for group in of_class})


def _check_names(option: str, value: Sequence[str], known: list[str]) -> None:
    if isinstance(value, str) or not value or not set(value) <= set(known):
        raise ValueError(f"{option} must be a list of some of {', '.join(known)}; got {value!r}.")
