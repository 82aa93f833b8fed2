"""The layout of a nesting of tensors within a few flat tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class Layout:
    """Packs a nesting of tensors into one flat tensor per dtype, and unpacks it.

    Creating many variables can take longer than learning a task: 21 ms for the 18 variables of a
    Conv4 (docs/performance.md).

    Args:
        structure: nesting of keras.KerasTensor. One for each tensor.
    """

    def __init__(self, structure: Any) -> None:
        self.structure = structure
        self._leaves = keras.tree.flatten(structure)
        self._places: dict[str, list[int]] = {}
        for place, leaf in enumerate(self._leaves):
            self._places.setdefault(leaf.dtype, []).append(place)
        # Equal layouts have equal keys.
        self.key = str(keras.tree.map_structure(lambda x: f"{x.dtype} {x.shape}", structure))

    @classmethod
    def of(cls, values: Any) -> Layout:
        """Makes the layout of a nesting of tensors."""
        return cls(
            keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype.name), values)
        )

    def sizes(self) -> dict[str, int]:
        """Returns the lengths of the flat tensors, by dtype."""
        return {dtype: sum(self._sizes(places)) for dtype, places in self._places.items()}

    def pack(self, values: Any) -> list[np.ndarray]:
        """Returns the flat values, in the order of `sizes()`."""
        # Use NumPy: some 20 eager operations would take longer than the copying.
        leaves = keras.tree.flatten(values)
        return [
            np.concatenate([np.ravel(leaves[place]) for place in places])
            for places in self._places.values()
        ]

    def unpack(self, flat: Sequence[tf.Tensor]) -> Any:
        """Returns the nesting of tensors from flat ones: the inverse of `pack`."""
        leaves: list[Any] = [None] * len(self._leaves)
        for tensor, places in zip(flat, self._places.values(), strict=True):
            for place, part in zip(places, tf.split(tensor, self._sizes(places)), strict=True):
                leaves[place] = tf.reshape(part, self._leaves[place].shape)
        return keras.tree.pack_sequence_as(self.structure, leaves)

    def _sizes(self, places: Sequence[int]) -> list[int]:
        return [math.prod(self._leaves[place].shape) for place in places]
