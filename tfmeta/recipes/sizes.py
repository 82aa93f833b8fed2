"""Bounds on the size of a meta-batch, so that a mistyped recipe does not fill the memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MOST_EXAMPLES = 1_000_000
MOST_BYTES = 2**34
PER_CLASS = ("n_shot", "n_query", "n_unlabelled")


def check_sizes(sizes: Mapping[str, Any], example_shape: Sequence[int] | None = None) -> None:
    """Checks that a meta-batch of episodes is not too large for any machine.

    Args:
        sizes: mapping. `n_shot`, `n_query` and `meta_batch_size` and, for classes, `n_way` and
            `n_unlabelled`; each an integer or a range.
        example_shape: sequence of int. Shape of one example. Defaults to None: not known yet.

    Raises:
        ValueError: If it is too large. The message names the sizes.
    """
    most = {
        name: size if isinstance(size, int) else max(size)
        for name, size in sizes.items()
        if name in ("n_way", *PER_CLASS, "meta_batch_size")
    }
    per_class = [name for name in PER_CLASS if most.get(name)]
    n_per_class = sum(most[name] for name in per_class)
    n_examples = most.get("n_way", 1) * n_per_class * most["meta_batch_size"]
    way = "n_way × " if "n_way" in most else ""
    product = f"{way}({' + '.join(per_class)}) × meta_batch_size"
    if n_examples > MOST_EXAMPLES:
        raise ValueError(
            f"{product} must be at most {MOST_EXAMPLES:,} examples; got {n_examples:,}."
        )
    n_bytes = 4 * n_examples * math.prod(example_shape or ())
    if n_bytes > MOST_BYTES:
        raise ValueError(
            f"{product} is {n_examples:,} examples of shape {tuple(example_shape or ())}, "
            f"{n_bytes / 2**30:,.0f} GiB: a meta-batch must have at most {MOST_BYTES / 2**30:.0f}."
        )
