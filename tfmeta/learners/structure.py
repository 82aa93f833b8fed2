"""The layers and variables of a model at one moment, to notice that they changed."""

from __future__ import annotations

import keras

from tfmeta import keras_internals


class Structure:
    """The layers of a model, its variables, and which of them were frozen.

    Functions that were traced for one structure are wrong for another: layers may have been frozen,
    thawed, added or replaced since. Two structures are equal if nothing of this happened between
    them. The values of variables do not matter.

    Args:
        model: keras.Model. The model.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> before = Structure(model)
    >>> model.layers[0].trainable = False
    >>> Structure(model) == before
    False
    """

    def __init__(self, model: keras.Model) -> None:
        # Keep the objects: the `id` of one that is gone may be that of a new one.
        self._layers = list(keras_internals.layers_of(model))
        self._variables = list(model.variables)
        self._frozen = [
            *(not layer.trainable for layer in self._layers),
            *(not variable.trainable for variable in self._variables),
        ]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Structure) or self._frozen != other._frozen:
            return False
        mine, others = ((*s._layers, *s._variables) for s in (self, other))
        return len(mine) == len(others) and all(a is b for a, b in zip(mine, others, strict=True))

    __hash__ = None  # type: ignore[assignment]
