"""Side effects of layers on trainable weights: constraints, and those that are refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from tfmeta import keras_internals, keras_layers


def check_side_effects(network: keras.Model) -> None:
    """Raises a ValueError if a layer's `call` is known to change or ignore weights of a task."""
    for layer in keras_internals.layers_of(network):
        if isinstance(layer, keras.layers.SpectralNormalization) and layer.trainable:
            raise ValueError(
                f"Layer {layer.name!r} is a SpectralNormalization, which overwrites the weights of "
                "its layer in training; a task's weights are its own: use the layer in it, with a "
                "kernel_constraint instead."
            )
        if isinstance(layer, keras.layers.TFSMLayer) and layer.trainable_variables:
            raise ValueError(
                f"Layer {layer.name!r} is a TFSMLayer, whose weights are fixed in its SavedModel "
                "and cannot be learned for a task: freeze it (trainable=False)."
            )
        if keras_layers.is_recomputed(layer):
            raise ValueError(
                f"Layer {layer.name!r} was made in a keras.RematScope: it would be computed again, "
                "for the gradient, with weights that are not the task's. Make it outside of one."
            )
        if keras_layers.overwrites_weights(layer):
            raise ValueError(
                f"Layer {layer.name!r} computes in float8 and overwrites its scales by their "
                "gradients, which inner steps cannot: use another dtype."
            )


def check_not_assigned(network: keras.Model, variable: keras.Variable, is_unchanged: bool) -> None:
    """Raises a ValueError if a layer assigned to a trainable variable."""
    if not is_unchanged:
        raise ValueError(
            f"A layer of {network.name!r} assigns to its weight {variable.path!r} when it is "
            "called, but what it assigns would be lost with the task: compute with the new value "
            "instead of assigning it, or make the weight not trainable."
        )


def constrained(values: list[tf.Tensor], weights: Iterable[Any]) -> list[tf.Tensor]:
    """Applies the constraints of weights to a task's values of them, as Keras does after a step.

    Args:
        values: list of tf.Tensor. The values after an inner step.
        weights: iterable of keras.Variable or tf.Tensor. What the values started from.
    """
    constraints = [getattr(weight, "constraint", None) for weight in weights]
    return [
        value if constraint is None else tf.cast(constraint(value), value.dtype)
        for value, constraint in zip(values, constraints, strict=True)
    ]
