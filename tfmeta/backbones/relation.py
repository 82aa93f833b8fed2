"""The two modules of the Relation Network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras


def relation_encoder(
    input_shape: Sequence[int], filters: int = 64, name: str = "relation_encoder"
) -> keras.Model:
    """The embedding module: four blocks of 3×3 convolution, batch norm and ReLU.

    The first two blocks have no padding and end in a 2×2 max-pooling. The last two are padded and
    do not pool. So 28×28 images become 5×5 maps, and 84×84 images 19×19 maps. As in the published
    code, batch norm has epsilon 1e-5 and kernels are He-normal by fan-out. Unlike there,
    convolutions have no bias: before batch norm, a bias has no effect except to amplify rounding
    errors.

    Args:
        input_shape: (height, width, channels). Shape of one image, 10×10 pixels or larger.
        filters: int. Channels of each block. Defaults to 64.
        name: str. Name of the model. Defaults to "relation_encoder".

    Returns:
        A functional model from `[N, height, width, channels]` to `[N, h, w, filters]` maps.

    Raises:
        ValueError: If the image is too small.

    Reference:
        Sung et al. (2018), https://arxiv.org/abs/1711.06025, section 3.4 and Figure 2.

    Example:

    >>> relation_encoder((28, 28, 1)).output_shape
    (None, 5, 5, 64)
    """
    if len(input_shape) != 3 or min(input_shape[:2]) < 10:
        raise ValueError(
            "input_shape must be (height, width, channels) of 10×10 or more pixels; "
            f"got {tuple(input_shape)}."
        )
    x = inputs = keras.Input(tuple(input_shape), name="image")
    for block in range(1, 5):
        x = _block(x, filters, padding="valid" if block <= 2 else "same", name=str(block))
        if block <= 2:
            x = keras.layers.MaxPooling2D(2, name=f"pool{block}")(x)
    return keras.Model(inputs, x, name=name)


def relation_module(
    feature_shape: Sequence[int],
    filters: int = 64,
    hidden_units: int = 8,
    padding: Literal["same", "valid"] | None = None,
    name: str = "relation_module",
) -> keras.Model:
    """The relation module: maps a pair of feature maps, concatenated by channel, to a score.

    Two blocks of 3×3 convolution, batch norm, ReLU and 2×2 max-pooling are followed by a dense
    layer with ReLU and one with a sigmoid. Dense weights start as N(0, 0.01) with bias 1;
    everything else is as in `relation_encoder`.

    Args:
        feature_shape: (h, w, channels). Shape of one map, before concatenation.
        filters: int. Channels of each block. Defaults to 64.
        hidden_units: int. Units of the first dense layer. Defaults to 8.
        padding: str or None. Padding of the convolutions: `"same"` as published for Omniglot,
            `"valid"` as published for miniImageNet. Defaults to None: `"valid"` if the maps are
            large enough (10×10), else `"same"`, so that both are as published.
        name: str. Name of the model. Defaults to "relation_module".

    Returns:
        A functional model from `[N, h, w, 2·channels]` to `[N, 1]` scores from 0 to 1.

    Raises:
        ValueError: If the maps are too small.

    Reference:
        Sung et al. (2018), https://arxiv.org/abs/1711.06025, section 3.4 and Figure 2.

    Example:

    >>> relation_module((5, 5, 64)).input_shape
    (None, 5, 5, 128)
    """
    smallest = min(feature_shape[:2])
    padding = padding or ("valid" if smallest >= 10 else "same")
    if len(feature_shape) != 3 or smallest < (4 if padding == "same" else 10):
        raise ValueError(
            "feature_shape must be (h, w, channels) of 4×4 or more (10×10 without padding); "
            f"got {tuple(feature_shape)}."
        )
    height, width, channels = feature_shape
    x = inputs = keras.Input((height, width, 2 * channels), name="pair")
    for block in (1, 2):
        x = _block(x, filters, padding, name=str(block))
        x = keras.layers.MaxPooling2D(2, name=f"pool{block}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    dense: dict[str, Any] = {"bias_initializer": "ones"}
    for units, activation, layer in ((hidden_units, "relu", "hidden"), (1, "sigmoid", "score")):
        kernel = keras.initializers.RandomNormal(stddev=0.01)
        x = keras.layers.Dense(units, activation, kernel_initializer=kernel, name=layer, **dense)(x)
    return keras.Model(inputs, x, name=name)


def _block(x: Any, filters: int, padding: str, name: str) -> Any:
    x = keras.layers.Conv2D(
        filters,
        3,
        padding=padding,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2, "fan_out", "untruncated_normal"),
        name=f"conv{name}",
    )(x)
    x = keras.layers.BatchNormalization(epsilon=1e-5, name=f"norm{name}")(x)
    return keras.layers.ReLU(name=f"relu{name}")(x)
