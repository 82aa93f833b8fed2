"""The way from tfmeta's images to those that a pretrained network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def check_image_shape(name: str, shape: Any) -> tuple[int, int, int]:
    """Checks the shape of images; returns it as a tuple.

    Args:
        name: str. The argument's name in an error.
        shape: sequence of int. (height, width, channels).

    Raises:
        ValueError: If it is no such shape, or has other than 1 or 3 channels.
    """
    is_shape = isinstance(shape, Sequence) and len(shape) == 3
    if not (is_shape and all(isinstance(n, int) and n > 0 for n in shape) and shape[2] in (1, 3)):
        raise ValueError(
            f"{name} must be (height, width, channels) with 1 or 3 channels; got {shape!r}."
        )
    return shape[0], shape[1], shape[2]


def resized_rgb(images: keras.KerasTensor, size: tuple[int, int] | None) -> keras.KerasTensor:
    """Resizes symbolic images, and repeats a single channel three times.

    Args:
        images: keras.KerasTensor `[N, height, width, 1 or 3]`.
        size: (height, width) or None. The size to bring them to, bilinearly and with antialiasing.
            None leaves them as they are.

    Returns:
        keras.KerasTensor `[N, *size, 3]`.
    """
    if size is not None and tuple(images.shape[1:3]) != tuple(size):
        # Keras's layer for it takes calls without `training` for training, and all later layers
        # of the network with it.
        images = keras.ops.image.resize(images, size, antialias=True)
    if images.shape[-1] == 1:
        images = keras.layers.Concatenate(name="rgb")([images] * 3)
    return images
