"""Arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.splits import proportional_sizes, split_classes


def arrays(
    x: Any, y: Any, split: str = "all", class_names: Sequence[str] | None = None
) -> ClassDataset:
    """Examples and integer labels in memory, grouped by label.

    Args:
        x: array `[N, *x]`. uint8 is scaled to [0, 1]; other types become float32 as they are.
        y: integer array `[N]`. Labels.
        split: str. "all" classes, or "train", "validation" or "test": 64 %, 16 % and 20 % of them,
            drawn by a fixed seed over the sorted class names. Defaults to "all".
        class_names: sequence of str, or None. Names of the labels 0, 1, …. Defaults to None: the
            labels themselves.

    Raises:
        ValueError: If the lengths differ, the labels are not integers, a value is not finite as
            float32, or there is no such split.
    """
    whole = ClassDataset.from_arrays(x, y, class_names, source={"name": "arrays", "split": split})
    return whole.subset(split_classes(whole.class_names, split, proportional_sizes(len(whole))))
