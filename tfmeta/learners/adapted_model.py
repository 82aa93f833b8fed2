"""A learned task as an ordinary Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.functional import statistics_of

if TYPE_CHECKING:
    from tfmeta.learners.meta_learner import MetaLearner


@keras.saving.register_keras_serializable("tfmeta")
class AdaptedModel(keras.Model):
    """A learner's `predict_task` with the state of one task as weights.

    Saves and loads like any Keras model.

    Args:
        learner: The learner whose `predict_task` predicts.
        state: The state's structure, with a `keras.KerasTensor` for each tensor.
    """

    def __init__(self, learner: MetaLearner, state: Any, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", learner.variable_dtype)
        super().__init__(**kwargs)
        self.learner = learner
        self.supports_jit = False
        self.class_names: list[str] | None = None
        self._structure = state
        self._state = [
            self.add_weight(
                shape=leaf.shape,
                initializer="zeros",
                dtype=leaf.dtype,
                name=f"state_{i}",
                trainable=tf.as_dtype(leaf.dtype).is_floating,
            )
            for i, leaf in enumerate(keras.tree.flatten(state))
        ]

    @classmethod
    def from_state(cls, learner: MetaLearner, state: Any) -> AdaptedModel:
        """The model of the task whose `adapt_task` returned `state`."""
        structure = keras.tree.map_structure(
            lambda leaf: keras.KerasTensor(leaf.shape, dtype=leaf.dtype.name), state
        )
        model = cls(learner, structure)
        for weight, value in zip(model._state, keras.tree.flatten(state), strict=True):
            weight.assign(value)
        return model

    def build(self, input_shape: Any) -> None:
        """Nothing to do: all weights exist from the start."""

    def call(self, query_x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Predicts queries `[Q, *x]`: `[Q, n_way]` logits, or `[Q, *y]`."""
        state = keras.tree.pack_sequence_as(self._structure, [v.value for v in self._state])
        return self.learner.predict_task(state, query_x, training=training)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["learner"] = keras.saving.serialize_keras_object(self.learner)
        config["state"] = keras.saving.serialize_keras_object(self._structure)
        config["class_names"] = self.class_names
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> AdaptedModel:
        config = dict(config)
        class_names = config.pop("class_names")
        for name in ("learner", "state"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        model = cls(**config)
        model.class_names = class_names
        return model


class NotCopyableError(ValueError):
    """Keras has no way to make a second model like this one."""


def copy_model(model: keras.Model) -> keras.Model:
    """A new model of the same class, configuration and weights.

    Raises:
        NotCopyableError: If a subclass of `keras.Model` has no complete `get_config`.
    """
    # A user's classes need not be registered for a copy within the process.
    classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
    try:
        with keras.saving.custom_object_scope(classes):
            copy = type(model).from_config(model.get_config())
    except (TypeError, NotImplementedError) as error:
        raise NotCopyableError(
            f"Keras cannot copy {model.name!r}, nor save it: each subclass of keras.Model in it "
            f"needs a get_config with all arguments of its constructor. ({error})"
        ) from error
    if not copy.built and model.get_build_config():
        copy.build_from_config(model.get_build_config())
    copy.set_weights(model.get_weights())
    return copy


def copy_with_values(
    network: keras.Model, trainable: Sequence[tf.Tensor], non_trainable: Sequence[tf.Tensor]
) -> keras.Model:
    """A copy of a network with these values of its variables."""
    copy = copy_model(network)
    values = [*trainable, *non_trainable]
    variables = [*copy.trainable_variables, *copy.non_trainable_variables]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return copy


def copy_with_statistics(network: keras.Model, statistics: Sequence[tf.Tensor]) -> keras.Model:
    """A copy of a network with a task's batch-norm statistics, if there are any."""
    copy = copy_model(network)
    if statistics:
        for variable, value in zip(statistics_of(copy), statistics, strict=True):
            variable.assign(value)
    return copy


def repeated(x: Any, value: tf.Tensor) -> Any:
    """A symbolic tensor that has the same `value` for every example of a symbolic `x`.

    Made of stock Keras layers, so that what is built with it loads without tfmeta.
    """
    shape, dtype = tuple(value.shape), value.dtype.name
    ones = keras.ops.ones_like(keras.layers.Flatten(dtype=dtype)(x)[:, :1])
    layer = keras.layers.Dense(int(np.prod(shape)), use_bias=False, dtype=dtype)
    outputs = layer(ones)
    layer.set_weights([np.reshape(value, [1, -1])])
    return keras.layers.Reshape(shape, dtype=dtype)(outputs)
