"""Arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.splits import proportional_sizes, split_classes


def arrays(
    x: Any, y: Any = None, split: str = "all", class_names: Sequence[str] | None = None
) -> ClassDataset:
    """Examples and labels in memory, grouped by label.

    Args:
        x: array `[N, *x]`. uint8 is scaled to [0, 1]; other types become float32 as they are, but
            uint16 is refused. Or a mapping from the names of classes to their examples, without y.
        y: array `[N]` of integers or text. Labels.
        split: str. "all" classes, or "train", "validation" or "test": 64 %, 16 % and 20 % of them,
            drawn by a fixed seed over the sorted class names. Defaults to "all".
        class_names: sequence of str, or None. Names of the labels 0, 1, …. Defaults to None: the
            labels themselves.

    Raises:
        ValueError: If the lengths differ, the labels are neither integers nor text, a value is
            uint16 or not finite as float32, or there is no such split.
    """
    if isinstance(x, Mapping):
        if class_names is not None:
            raise ValueError("A mapping from names to examples has class names already.")
        x, y, class_names = _joined(x)
    whole = ClassDataset.from_arrays(x, y, class_names, source={"name": "arrays", "split": split})
    return whole.subset(split_classes(whole.class_names, split, proportional_sizes(len(whole))))


def _joined(examples: Mapping[Any, Any]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns the examples of all classes, their labels, and the names of the classes."""
    parts = [np.asarray(part) for part in examples.values()]
    shapes = {name: part.shape for name, part in zip(examples, parts, strict=True)}
    if not parts or any(p.ndim < 2 or p.shape[1:] != parts[0].shape[1:] for p in parts):
        raise ValueError(
            "A mapping must hold the examples [N, *x] of each class by its name, all of one shape "
            f"*x; got the shapes {shapes}. For inputs and labels, pass arrays (x, y)."
        )
    dtypes = sorted({str(part.dtype) for part in parts})
    if len(dtypes) > 1:
        raise ValueError(f"The examples of all classes must be of one type; got {dtypes}.")
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return np.concatenate(parts), labels, [str(name) for name in examples]
