"""A learned task as an ordinary Keras model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.functional import statistics_of

if TYPE_CHECKING:
    from tfmeta.learners.meta_learner import MetaLearner


class Layout:
    """How a nesting of tensors lies in flat ones, one for each dtype.

    Args:
        structure: The nesting, with a `keras.KerasTensor` for each tensor.
    """

    def __init__(self, structure: Any) -> None:
        self.structure = structure
        self._leaves = keras.tree.flatten(structure)
        self._places: dict[str, list[int]] = {}
        for place, leaf in enumerate(self._leaves):
            self._places.setdefault(leaf.dtype, []).append(place)
        # Equal for layouts that are equal.
        self.key = str(keras.tree.map_structure(lambda x: f"{x.dtype} {x.shape}", structure))

    @classmethod
    def of(cls, values: Any) -> Layout:
        """That of these tensors."""
        return cls(
            keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype.name), values)
        )

    def sizes(self) -> dict[str, int]:
        """The lengths of the flat tensors, by dtype."""
        return {dtype: sum(self._sizes(places)) for dtype, places in self._places.items()}

    def pack(self, values: Any) -> list[np.ndarray]:
        """The flat values, in the order of `sizes()`."""
        # With NumPy, for each of a score of eager operations takes longer than all of the copying.
        leaves = keras.tree.flatten(values)
        return [
            np.concatenate([np.ravel(leaves[place]) for place in places])
            for places in self._places.values()
        ]

    def unpack(self, flat: Sequence[tf.Tensor]) -> Any:
        """The opposite of `pack`."""
        leaves: list[Any] = [None] * len(self._leaves)
        for tensor, places in zip(flat, self._places.values(), strict=True):
            for place, part in zip(places, tf.split(tensor, self._sizes(places)), strict=True):
                leaves[place] = tf.reshape(part, self._leaves[place].shape)
        return keras.tree.pack_sequence_as(self.structure, leaves)

    def _sizes(self, places: Sequence[int]) -> list[int]:
        return [math.prod(self._leaves[place].shape) for place in places]


@keras.saving.register_keras_serializable("tfmeta")
class AdaptedModel(keras.Model):
    """A learner's `predict_task` with the state of one task as weights.

    Saves and loads like any Keras model. The models of a learner's tasks share its compiled
    function; what differs from task to task lies in one flat weight per dtype, because many
    variables take longer to create than a task to learn.

    Args:
        learner: The learner whose `predict_task` predicts. Only its configuration matters.
        values: A `keras.KerasTensor` for each tensor of the state, under `"state"`, and for each of
            the learner's `variables_of_predict()`, under `"variables"`.
        class_names: Optional names of the classes 0, 1, …
        flat: The values themselves, packed; zeros if None, until weights are loaded.
    """

    def __init__(
        self,
        learner: MetaLearner,
        values: dict[str, Any],
        class_names: list[str] | None = None,
        flat: Sequence[np.ndarray] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", learner.variable_dtype)
        super().__init__(**kwargs)
        # Inside of a function, or Keras would take the learner's weights for this model's, too.
        self._learner = lambda: learner
        self.supports_jit = False
        self.class_names = class_names
        self.output_kind = learner.output_kind
        self._layout = Layout(values)
        self._flat = [
            self.add_weight(
                shape=[size],
                initializer="zeros" if flat is None else lambda *_, i=i, **__: tf.constant(flat[i]),
                dtype=dtype,
                name=f"values_{dtype}",
                trainable=tf.as_dtype(dtype).is_floating,
            )
            for i, (dtype, size) in enumerate(self._layout.sizes().items())
        ]

    @classmethod
    def from_state(cls, learner: MetaLearner, state: Any) -> AdaptedModel:
        """The model of the task whose `adapt_task` returned `state`."""
        variables = [tf.convert_to_tensor(v.value) for v in learner.variables_of_predict()]
        values = {"state": state, "variables": variables}
        layout = Layout.of(values)
        return cls(learner, layout.structure, flat=layout.pack(values))

    @property
    def learner(self) -> MetaLearner:
        """The learner whose `predict_task` predicts."""
        return self._learner()

    def build(self, input_shape: Any) -> None:
        """Nothing to do: all weights exist from the start."""

    def call(self, query_x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Predicts queries `[Q, *x]`: `[Q, n_way]` logits, or `[Q, *y]`."""
        flat = [weight.value for weight in self._flat]
        return self.learner.predict_with(self._layout, flat, query_x, training)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "learner": keras.saving.serialize_keras_object(self.learner),
            "values": keras.saving.serialize_keras_object(self._layout.structure),
            "class_names": self.class_names,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> AdaptedModel:
        objects = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("learner", "values")
        }
        return cls(**{**config, **objects})


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
