"""The options of a section's episodes, with those that it leaves to another section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmeta.recipes.options import Options

# A learner is validated and tested on images as they are, with all labels and without unlabelled
# examples, unless those sections say otherwise.
OF_META_TRAINING = ("augment", "n_unlabelled", "labelled_fraction")


def episode_options(episodes: Options, *others: Options) -> dict[str, Any]:
    """Returns the options of `ClassDataset.episodes`, or of `TaskDistribution.episodes`.

    Args:
        episodes: Options. The section `episodes`, for meta-training.
        *others: Options. For validation and test: the sections that change options, the last one
            last. Options of other kinds in them are left out.

    Returns:
        Plain values, without options that are null.
    """
    options = episodes.model_dump(mode="json")
    names = options.keys()
    if others:
        options |= dict.fromkeys(names & set(OF_META_TRAINING))
    for other in others:
        options |= {name: value for name, value in other.given().items() if name in names}
    return {name: value for name, value in options.items() if value is not None}


def check_groups(options: Mapping[str, Any], has_groups: bool) -> None:
    """Checks the groups of episodes as far as is possible without the data.

    Args:
        options: mapping. What `episode_options` returned.
        has_groups: bool. Whether the examples of the data have groups.

    Raises:
        ValueError: If there are no groups, or one is for the support set and for the queries.
    """
    support, query = (options.get(key, ()) for key in ("support_groups", "query_groups"))
    if (support or query) and not has_groups:
        raise ValueError(
            "support_groups and query_groups are for data whose examples have groups, emoji and "
            "icons; leave them out."
        )
    if shared := sorted(set(support) & set(query)):
        raise ValueError(
            "no group may be in both support_groups and query_groups, or a query could be a "
            f"support example; got {', '.join(shared)} in both."
        )
