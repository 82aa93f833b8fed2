"""EfficientNet-Lite0, a small encoder of colour photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras

from tfmeta.backbones.image_inputs import check_image_shape, resized_rgb
from tfmeta.checks import check_integer

EPSILON = 1e-3
SMALLEST = 32


class _Stage(NamedTuple):
    """Some equal blocks; the first one strides and changes the number of channels."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def efficientnet_lite0(
    input_shape: Sequence[int] = (224, 224, 3),
    *,
    resize_to: int | None = None,
    name: str = "efficientnet_lite0",
) -> keras.Model:
    """Makes EfficientNet-Lite0 without its classifier, with random weights.

    It is EfficientNet-B0 without squeeze-and-excitation and with ReLU6 instead of swish: 49
    convolutions, each followed by batch norm, and the mean over the last map. It scales pixels to
    (255·x − 127) / 128 itself. `tfmeta.backbones.pretrained` gives it the weights of ImageNet.

    Args:
        input_shape: (height, width, channels). Shape of one image. A single channel is repeated
            three times. Defaults to (224, 224, 3), on which it was trained.
        resize_to: int or None. Height and width to which images are resized in the network. Small
            images cost less, and their features are worse. Defaults to None: images keep their
            size, which must be at least 32×32.
        name: str. Name of the model. Defaults to "efficientnet_lite0".

    Returns:
        A functional model from `[N, height, width, channels]` images in [0, 1] to `[N, 1280]`
        features.

    Raises:
        ValueError: If the shape is none of images, or they are too small.

    Reference:
        Tan & Le (2019), https://arxiv.org/abs/1905.11946, table 1; the lite variants are in
        https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.

    Example:

    >>> efficientnet_lite0((64, 64, 1)).output_shape
    (None, 1280)
    """
    shape = check_image_shape("input_shape", input_shape)
    if resize_to is not None:
        check_integer("resize_to", resize_to, 1)
    size = shape[:2] if resize_to is None else (resize_to, resize_to)
    if min(size) < SMALLEST:
        raise ValueError(
            f"EfficientNet-Lite0 needs images of {SMALLEST}×{SMALLEST} or more; got "
            f"{size[0]}×{size[1]}. Use resize_to=112, for example."
        )
    inputs = keras.Input(shape, name="image")
    x = resized_rgb(inputs, size)
    x = keras.layers.Rescaling(255 / 128, -127 / 128, name="rescaling")(x)
    x = _convolved(x, "stem", 32, kernel=3, stride=2)
    block = 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            x = _block(x, f"block{block}", stage, stride)
            block += 1
    x = _convolved(x, "head", 1280, kernel=1, stride=1)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, x, name=name)


def _block(x: keras.KerasTensor, name: str, stage: _Stage, stride: int) -> keras.KerasTensor:
    """A mobile inverted bottleneck: expands, filters each channel, and projects."""
    inputs, channels = x, x.shape[-1]
    if stage.expansion != 1:
        x = _convolved(x, f"{name}_expand", channels * stage.expansion, kernel=1, stride=1)
    x = keras.layers.DepthwiseConv2D(
        stage.kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(x)
    x = _normalized(x, f"{name}_depthwise")
    x = _convolved(x, f"{name}_project", stage.channels, kernel=1, stride=1, is_linear=True)
    if stride == 1 and channels == stage.channels:
        x = keras.layers.Add(name=f"{name}_add")([inputs, x])
    return x


def _convolved(
    x: keras.KerasTensor,
    name: str,
    filters: int,
    *,
    kernel: int,
    stride: int,
    is_linear: bool = False,
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return _normalized(x, name, is_linear)


def _normalized(x: keras.KerasTensor, name: str, is_linear: bool = False) -> keras.KerasTensor:
    x = keras.layers.BatchNormalization(epsilon=EPSILON, momentum=0.99, name=f"{name}_norm")(x)
    return x if is_linear else keras.layers.ReLU(6.0, name=f"{name}_relu")(x)
