"""The encoder of examples that are features already."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def identity(input_shape: Sequence[int], name: str = "identity") -> keras.Model:
    """Returns its input: an encoder for data of features, such as `tfmeta.data.embed` makes.

    Args:
        input_shape: sequence of int. Shape of one example.
        name: str. Name of the model. Defaults to "identity".

    Returns:
        A functional model from `[N, *input_shape]` to the same, without weights.

    Example:

    >>> identity((1280,)).output_shape
    (None, 1280)
    """
    inputs = keras.Input(tuple(input_shape))
    return keras.Model(inputs, keras.layers.Identity()(inputs), name=name)
