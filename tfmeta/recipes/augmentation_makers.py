"""Makes the layers that change a recipe's images at random."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import keras


def make_augmentation(augment: Any) -> Any:
    """Makes the `augment` of `ClassDataset.episodes`.

    Python's global random state, of which Keras draws seeds, is left as it was. Those seeds change
    nothing, because episodes have their own.

    Args:
        augment: What the key `augment` of a recipe holds: a layer, a list of layers, or a mapping
            from "support" and "query" to these. Only `tfmeta.recipes` checks that it is safe.

    Returns:
        A layer, or a mapping from "support" and "query" to layers.

    Raises:
        ValueError: If a layer does not take its options.
    """
    state = random.getstate()
    try:
        if isinstance(augment, Mapping) and "class_name" not in augment:
            return {part: _made(layers) for part, layers in augment.items()}
        return _made(augment)
    finally:
        random.setstate(state)


def _made(given: Any) -> keras.Layer:
    """Makes a layer, or a `Sequential` of a list of layers."""
    if isinstance(given, list | tuple):
        return keras.Sequential([_made(layer) for layer in given])
    if isinstance(given, str):
        given = {"class_name": given}
    name = given["class_name"]
    try:
        # Not by Keras's deserialisation, which can import modules.
        return getattr(keras.layers, name)(**given.get("config", {}))
    except Exception as error:
        raise ValueError(f"augment: {name}: {' '.join(str(error).split())}") from error
