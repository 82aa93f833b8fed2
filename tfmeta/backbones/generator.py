"""The networks of a generator that knows the task: one draws examples, one encodes examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras


def generator(
    n_inputs: int, example_shape: Sequence[int], filters: int = 64, name: str = "generator"
) -> keras.Model:
    """A network from random numbers and a task's code to an example.

    For images: a dense layer to maps of a quarter of the size, twice an upsampling and a 5×5
    convolution with leaky ReLU, and a 5×5 convolution with a sigmoid, for pixels from 0 to 1. There
    is no batch norm. For vectors: two dense layers with leaky ReLU, and a linear one.

    Args:
        n_inputs: int. How many numbers it takes.
        example_shape: sequence of int. (height, width, channels) of an image, or (n,) of a vector.
        filters: int. Channels of the last hidden layer. The maps before have twice and four times
            as many; hidden layers for vectors have `filters` units. Defaults to 64.
        name: str. Name of the model. Defaults to "generator".

    Returns:
        A functional model from `[N, n_inputs]` to `[N, *example_shape]`.

    Raises:
        ValueError: If the examples are neither images nor vectors.

    Example:

    >>> generator(10, (28, 28, 1), filters=4).output_shape
    (None, 28, 28, 1)
    """
    _check_shape(example_shape)
    x = inputs = keras.Input((n_inputs,), name="code")
    if len(example_shape) == 1:
        for i in (1, 2):
            x = _leaky(keras.layers.Dense(filters, name=f"hidden{i}")(x))
        return keras.Model(
            inputs, keras.layers.Dense(example_shape[0], name="example")(x), name=name
        )
    height, width, channels = example_shape
    h, w = math.ceil(height / 4), math.ceil(width / 4)
    x = _leaky(keras.layers.Dense(h * w * 4 * filters, name="maps")(x))
    x = keras.layers.Reshape((h, w, 4 * filters))(x)
    for i, n in enumerate((2 * filters, filters), start=1):
        x = keras.layers.UpSampling2D(2, name=f"up{i}")(x)
        x = _leaky(keras.layers.Conv2D(n, 5, padding="same", name=f"conv{i}")(x))
    if (4 * h, 4 * w) != (height, width):
        cropping = ((0, 4 * h - height), (0, 4 * w - width))
        x = keras.layers.Cropping2D(cropping, name="crop")(x)
    last = keras.layers.Conv2D(channels, 5, padding="same", activation="sigmoid", name="example")
    return keras.Model(inputs, last(x), name=name)


def example_encoder(
    example_shape: Sequence[int], n_outputs: int, filters: int = 64, name: str = "example_encoder"
) -> keras.Model:
    """A network from an example to numbers that describe it.

    For images: six 3×3 convolutions with leaky ReLU, of which every second has a stride of 2, with
    `filters`, twice and four times as many channels, and a dense layer. For vectors: two dense
    layers with leaky ReLU, and a linear one.

    Args:
        example_shape: sequence of int. (height, width, channels) of an image, or (n,) of a vector.
        n_outputs: int. How many numbers describe an example.
        filters: int. Channels of the first convolutions, or units of hidden layers. Defaults to 64.
        name: str. Name of the model. Defaults to "example_encoder".

    Returns:
        A functional model from `[N, *example_shape]` to `[N, n_outputs]`.

    Raises:
        ValueError: If the examples are neither images nor vectors.

    Example:

    >>> example_encoder((28, 28, 1), 32, filters=4).output_shape
    (None, 32)
    """
    _check_shape(example_shape)
    x = inputs = keras.Input(tuple(example_shape), name="example")
    if len(example_shape) == 1:
        for i in (1, 2):
            x = _leaky(keras.layers.Dense(filters, name=f"hidden{i}")(x))
    else:
        for i in range(6):
            convolution = keras.layers.Conv2D(
                filters * 2 ** (i // 2), 3, 1 + i % 2, padding="same", name=f"conv{i + 1}"
            )
            x = _leaky(convolution(x))
        x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(n_outputs, name="code")(x), name=name)


def _leaky(x: Any) -> Any:
    return keras.layers.LeakyReLU(0.2)(x)


def _check_shape(example_shape: Sequence[int]) -> None:
    if len(example_shape) not in (1, 3):
        raise ValueError(
            "There are generators of vectors (n,) and of images (height, width, channels); got the "
            f"shape {tuple(example_shape)}: make your own networks."
        )
