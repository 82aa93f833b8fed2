"""Which layers of a network are frozen: kept in files, where Keras's configuration may lose it."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfmeta import keras_internals


def trainable_layers(network: keras.Model) -> list[bool]:
    """Tells of a network and each layer in it, nested ones included, whether it is trainable.

    Args:
        network: keras.Model. The network.
    """
    return [layer.trainable for layer in keras_internals.layers_of(network)]


def freeze_layers(network: keras.Model, trainable: Sequence[bool]) -> None:
    """Freezes and thaws the layers of a network that was made from its configuration.

    Keras keeps in a file which layers of a functional model are frozen, but not which of those that
    a subclass makes by itself.

    Args:
        network: keras.Model. The network.
        trainable: list of bool. What `trainable_layers` returned for the saved network.

    Raises:
        ValueError: If the network has another number of layers.
    """
    layers = list(keras_internals.layers_of(network))
    if len(layers) != len(trainable):
        raise ValueError(
            f"Some layers of {network.name!r} were frozen (trainable=False) when it was saved, but "
            f"it had {len(trainable)} layers then, and has {len(layers)} when it is made from its "
            "configuration: make all layers in the network's constructor, and save it again."
        )
    # Outer layers come first: to set one sets those in it, too.
    for layer, value in zip(layers, trainable, strict=True):
        if layer.trainable != value:
            layer.trainable = value
