"""Results and settings as text, for tables and the command line. Nothing else is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def in_words(value: Any) -> str:
    """Returns a number, or a range `[least, most]`, as text.

    Args:
        value: int or sequence of two int.

    Example:

    >>> in_words([5, 20])
    '5 to 20'
    """
    return " to ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def ways_and_shots(episodes: Mapping[str, Any]) -> str:
    """Returns the sizes of episodes and, if they are not as usual, their groups and augmentation.

    Args:
        episodes: Mapping. `n_shot` and, for classes, `n_way`. If given, `support_groups`,
            `query_groups` and `augment`, as a recipe has them.

    Example:

    >>> ways_and_shots({"n_way": 5, "n_shot": 1})
    '5-way 1-shot'
    >>> ways_and_shots({"n_way": 5, "n_shot": 1, "support_groups": ["noto", "twemoji"]})
    '5-way 1-shot, support from noto and twemoji'
    """
    ways = f"{in_words(episodes['n_way'])}-way " if "n_way" in episodes else ""
    text = f"{ways}{in_words(episodes['n_shot'])}-shot"
    for part, key in (("support", "support_groups"), ("queries", "query_groups")):
        if episodes.get(key):
            text += f", {part} from {' and '.join(episodes[key])}"
    if augment := episodes.get("augment"):
        parts = [part for part in ("support", "query") if part in augment]
        text += ", augmented" + (f" {' and '.join(parts)}" if parts else "")
    return text


def in_numbers(mean: float | None, interval: float | None, metric: str) -> str:
    """Returns a mean and its half-interval as text, accuracies in percent.

    Args:
        mean: float, or None if it is not finite.
        interval: float or None. The half-interval; None if it is not finite.
        metric: str. `"accuracy"`, a share of 1, is multiplied by 100; others stay as they are.

    Example:

    >>> in_numbers(0.98123, 0.0021, "accuracy")
    '98.12 ± 0.21'
    """
    if mean is None or interval is None or not math.isfinite(mean) or not math.isfinite(interval):
        return "not finite"
    if metric == "accuracy":
        return f"{100 * mean:.2f} ± {100 * interval:.2f}"
    # If a few tasks diverge, only the order of magnitude is meaningful.
    form = ".4f" if mean < 1000 else ".1e"
    return f"{mean:{form}} ± {interval:{form}}"
