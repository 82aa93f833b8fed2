"""The four-block convolutional network of most few-shot papers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import keras


def conv4(
    n_way: int | None,
    input_shape: Sequence[int],
    filters: int = 64,
    downsampling: Literal["stride", "max_pool"] = "stride",
    head: Literal["mean", "flatten"] = "mean",
    name: str = "conv4",
) -> keras.Model:
    """Four blocks of 3×3 convolution, batch norm and ReLU, each halving the image; then logits.

    The published variants:

    - MAML on Omniglot: 64 filters, `"stride"`, `"mean"` (the defaults);
    - MAML on miniImageNet: 32 filters, `"max_pool"`, `"flatten"`;
    - Prototypical and Matching Networks: 64 filters, `"max_pool"`, `"flatten"`.

    Batch norm has a shift but no scale, as in MAML's code. Convolutions have no bias: before batch
    norm, a bias has no effect except to amplify rounding errors. Kernels are Glorot-uniform.

    Args:
        n_way: int or None. Number of classes, the outputs of the last layer. With None, the model
            outputs the features before the last layer, as metric learners need them.
        input_shape: (height, width, channels). Shape of one image.
        filters: int. Channels of each block. Defaults to 64.
        downsampling: str. `"stride"`: the convolution has stride 2 (padding `"same"`).
            `"max_pool"`: a 2×2 max-pooling follows the ReLU and drops an odd last row or column.
            Defaults to `"stride"`.
        head: str. Features that the logits are computed from: the spatial `"mean"` of the last
            block (`filters` features), or the whole block (`"flatten"`). Defaults to `"mean"`.
        name: str. Name of the model. Defaults to "conv4".

    Returns:
        A functional model from `[N, height, width, channels]` float images to `[N, n_way]` logits
        or `[N, features]`.

    Raises:
        ValueError: If an argument is not one of the above, or the image is too small to be pooled
            four times.

    Reference:
        Vinyals et al. (2016), https://arxiv.org/abs/1606.04080, section 4.1.1; Finn et al. (2017),
        https://arxiv.org/abs/1703.03400, section 5.2.

    Example:

    >>> conv4(n_way=5, input_shape=(28, 28, 1)).count_params()
    112261
    """
    if downsampling not in ("stride", "max_pool"):
        raise ValueError(f'downsampling must be "stride" or "max_pool"; got {downsampling!r}.')
    if head not in ("mean", "flatten"):
        raise ValueError(f'head must be "mean" or "flatten"; got {head!r}.')
    if len(input_shape) != 3:
        raise ValueError(f"input_shape must be (height, width, channels); got {input_shape}.")
    if downsampling == "max_pool" and min(input_shape[:2]) < 16:
        raise ValueError(
            f"Four poolings need images of 16×16 or more; got {input_shape}. "
            'Use downsampling="stride".'
        )
    stride = 2 if downsampling == "stride" else 1
    x = inputs = keras.Input(tuple(input_shape), name="image")
    for block in range(1, 5):
        x = keras.layers.Conv2D(
            filters, 3, stride, padding="same", use_bias=False, name=f"conv{block}"
        )(x)
        x = keras.layers.BatchNormalization(scale=False, name=f"norm{block}")(x)
        x = keras.layers.ReLU(name=f"relu{block}")(x)
        if downsampling == "max_pool":
            x = keras.layers.MaxPooling2D(2, name=f"pool{block}")(x)
    if head == "mean":
        x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    else:
        x = keras.layers.Flatten(name="flatten")(x)
    if n_way is not None:
        x = keras.layers.Dense(n_way, name="logits")(x)
    return keras.Model(inputs, x, name=name)
