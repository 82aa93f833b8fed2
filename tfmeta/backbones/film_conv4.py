"""Convolutional network whose channels are modulated by a context, for CAVIA."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def film_conv4(
    n_way: int,
    input_shape: Sequence[int],
    n_context: int = 100,
    filters: int = 64,
    name: str = "film_conv4",
) -> keras.Model:
    """A `conv4` with stride 2 whose third block is modulated by context parameters.

    After the third block's batch norm, h becomes γ h + β channel by channel (FiLM). Here
    (γ − 1, β) is a linear function of the context.

    Deviations from the paper: the linear function gives γ − 1 instead of γ and starts with zero
    bias, so that a context of zeros changes nothing; and blocks halve the image by strides.

    Args:
        n_way: int. Number of classes, the outputs of the last layer.
        input_shape: (height, width, channels). Shape of one image.
        n_context: int. Number of context parameters. Defaults to 100.
        filters: int. Channels of each block. Defaults to 64.
        name: str. Name of the model. Defaults to "film_conv4".

    Returns:
        A functional model from `[image [N, height, width, channels], context [N, n_context]]` to
        `[N, n_way]` logits.

    Raises:
        ValueError: If `input_shape` does not have three elements.

    Reference:
        Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson (2019), https://arxiv.org/abs/1810.03642,
        section 3.3 and appendix; FiLM: Perez et al. (2018), https://arxiv.org/abs/1709.07871.

    Example:

    >>> film_conv4(5, (28, 28, 1)).input_shape
    [(None, 28, 28, 1), (None, 100)]
    """
    if len(input_shape) != 3:
        raise ValueError(f"input_shape must be (height, width, channels); got {input_shape}.")
    x = image = keras.Input(tuple(input_shape), name="image")
    context = keras.Input((n_context,), name="context")
    for block in range(1, 5):
        x = keras.layers.Conv2D(filters, 3, 2, padding="same", use_bias=False, name=f"conv{block}")(
            x
        )
        x = keras.layers.BatchNormalization(scale=False, name=f"norm{block}")(x)
        if block == 3:
            film = keras.layers.Dense(2 * filters, name="film")(context)
            film = keras.layers.Reshape((1, 1, 2 * filters), name="film_channels")(film)
            scaled = keras.layers.Multiply(name="scale")([x, film[..., :filters]])
            x = keras.layers.Add(name="shift")([x, scaled, film[..., filters:]])
        x = keras.layers.ReLU(name=f"relu{block}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    logits = keras.layers.Dense(n_way, name="logits")(x)
    return keras.Model([image, context], logits, name=name)
