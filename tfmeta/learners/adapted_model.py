"""A Keras model of a learned task that still needs its learner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.layout import Layout
from tfmeta.learners.task_inputs import check_no_pixels
from tfmeta.networks import warn_of_unregistered


class PredictsTasks(Protocol):
    """The part of a learner that `AdaptedModel` needs."""

    variable_dtype: str

    @property
    def output_kind(self) -> Literal["logits", "scores", "values"]: ...
    def variables_of_predict(self) -> list[keras.Variable]: ...
    def predict_with(
        self, layout: Layout, flat: Sequence[tf.Tensor], query_x: tf.Tensor, training: bool
    ) -> tf.Tensor: ...


@keras.saving.register_keras_serializable("tfmeta")
class AdaptedModel(keras.Model):
    """A learner's `predict_task` with the state of one task as weights.

    It saves and loads like any Keras model. The models of a learner's tasks share its compiled
    functions; the values of a task are kept in one flat weight per dtype.

    Args:
        learner: MetaLearner. The learner whose `predict_task` predicts. Only its configuration
            matters.
        values: dict. A `keras.KerasTensor` for each tensor of the state, under `"state"`, and for
            each of the learner's `variables_of_predict()`, under `"variables"`.
        class_names: list of str or None. Names of the classes 0, 1, … Defaults to None.
        flat: list of np.ndarray or None. The values themselves, packed; zeros until weights are
            loaded if None. Defaults to None.
        **kwargs: As in `keras.Model`: `name`, `dtype`.
    """

    def __init__(
        self,
        learner: PredictsTasks,
        values: dict[str, Any],
        class_names: list[str] | None = None,
        flat: Sequence[np.ndarray] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", learner.variable_dtype)
        super().__init__(**kwargs)
        # Keep the learner inside a function, or Keras would also track its weights for this model.
        self._learner = lambda: learner
        self.supports_jit = False
        self.class_names = class_names
        self.output_kind = learner.output_kind
        self._layout = Layout(values)
        sizes = self._layout.sizes()
        if flat is not None and [len(part) for part in flat] != list(sizes.values()):
            raise ValueError(
                f"flat must hold one array per dtype, of the lengths {sizes}; got lengths "
                f"{[len(part) for part in flat]}."
            )
        self._flat = [
            self.add_weight(
                shape=[size],
                initializer="zeros" if flat is None else lambda *_, i=i, **__: tf.constant(flat[i]),
                dtype=dtype,
                name=f"values_{dtype}",
                trainable=tf.as_dtype(dtype).is_floating,
            )
            for i, (dtype, size) in enumerate(sizes.items())
        ]

    @classmethod
    def from_state(cls, learner: PredictsTasks, state: Any) -> AdaptedModel:
        """Makes the model of the task whose `adapt_task` returned `state`."""
        variables = [tf.convert_to_tensor(v.value) for v in learner.variables_of_predict()]
        values = {"state": state, "variables": variables}
        layout = Layout.of(values)
        return cls(learner, layout.structure, flat=layout.pack(values))

    @property
    def learner(self) -> Any:
        """The learner whose `predict_task` predicts."""
        return self._learner()

    def build(self, input_shape: Any) -> None:
        """Does nothing: all weights exist from the start."""

    def call(self, query_x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Predicts queries `[Q, *x]`: `[Q, n_way]` logits, or `[Q, *y]`."""
        check_no_pixels("x", query_x.dtype, self.learner.input_network())
        flat = [weight.value for weight in self._flat]
        return self.learner.predict_with(self._layout, flat, query_x, training)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the model; see `keras.Model.save`. Warns of what its file needs to load."""
        warn_of_unregistered(self)
        super().save(*args, **kwargs)

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
