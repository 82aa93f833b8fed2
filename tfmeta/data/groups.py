"""Groups of examples across classes, such as the vendors that draw emoji."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Names of groups, or None for those that the other part of an episode leaves.
Groups = Sequence[str] | None


def rows_of_groups(
    rows: Sequence[np.ndarray], groups: Sequence[np.ndarray], chosen: Sequence[str]
) -> list[np.ndarray]:
    """Returns the rows of each class that are in some groups.

    Args:
        rows: sequence of int arrays. The rows of each class.
        groups: sequence of str arrays. The group of each row.
        chosen: sequence of str. Names of groups.
    """
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
        raise ValueError(
            "support_groups and query_groups need a data set whose examples have groups, such as "
            "emoji; this one has none. Leave them out, or make it with groups=."
        )
    known = sorted({str(group) for of_class in groups for group in of_class})
    given = {"support_groups": support_groups, "query_groups": query_groups}
    for name, value in given.items():
        if value is not None and (isinstance(value, str) or not value or set(value) - set(known)):
            raise ValueError(
                f"{name} must be a list of groups among {', '.join(known)}; got {value!r}."
            )
    support, query = (
        [group for group in known if (group in one if one is not None else group not in other)]
        for one, other in (
            (support_groups, query_groups or ()),
            (query_groups, support_groups or ()),
        )
    )
    shared = sorted(set(support) & set(query))
    if shared or not support or not query:
        raise ValueError(
            "support_groups and query_groups must each have groups, and share none; got "
            f"{support} and {query}."
        )
    return support, query
