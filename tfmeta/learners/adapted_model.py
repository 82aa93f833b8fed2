"""A Keras model of a learned task that still needs its learner."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.layout import Layout
from tfmeta.learners.output_kinds import OutputKind
from tfmeta.learners.structure import Structure
from tfmeta.learners.task_inputs import check_no_pixels
from tfmeta.networks import normalises_together, warn_of_unregistered


class PredictsTasks(Protocol):
    """The part of a learner that `AdaptedModel` needs."""

    variable_dtype: str

    @property
    def output_kind(self) -> OutputKind: ...
    def variables_of_predict(self) -> list[keras.Variable]: ...
    def predict_with(
        self, layout: Layout, flat: Sequence[tf.Tensor], query_x: tf.Tensor, training: bool
    ) -> tf.Tensor: ...


@keras.saving.register_keras_serializable("tfmeta")
class AdaptedModel(keras.Model):
    """A learner's `predict_task` with the state of one task as weights.

    It saves and loads like any Keras model. The models of a learner's tasks share its compiled
    functions; the values of a task are kept in one flat weight per dtype.

    If the learner normalises queries together, the model warns once when it gets one query alone,
    or queries in several batches.

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
        self.output_kind: str = learner.output_kind
        self._structure: Structure | None = None
        self._has_warned = False
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
        model = cls(learner, layout.structure, flat=layout.pack(values))
        model._structure = Structure(model.learner)
        return model

    @property
    def learner(self) -> Any:
        """The learner whose `predict_task` predicts."""
        return self._learner()

    def build(self, input_shape: Any) -> None:
        """Does nothing: all weights exist from the start."""

    def call(self, query_x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Predicts queries `[Q, *x]`: `[Q, n_way]` logits, or `[Q, *y]`.

        Raises:
            ValueError: If layers of the learner's network were frozen, thawed or replaced since.
        """
        if isinstance(query_x, Mapping | list | tuple):
            raise ValueError(
                "The queries must be one tensor [Q, *x], for a learner's network has one input; "
                f"got a {type(query_x).__name__}."
            )
        check_no_pixels("x", query_x.dtype, self.learner.input_network())
        if query_x.shape[0] == 1:
            self._warn("this one query is normalised by itself")
        structure = Structure(self.learner)
        if self._structure is not None and structure != self._structure:
            raise ValueError(
                "Layers of the learner's network were frozen, thawed or replaced (trainable=) "
                "after this task was learned: undo that, or adapt to the task again."
            )
        self._structure = structure
        flat = [weight.value for weight in self._flat]
        return self.learner.predict_with(self._layout, flat, query_x, training)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the model; see `keras.Model.save`. Warns of what its file needs to load."""
        warn_of_unregistered(self)
        super().save(*args, **kwargs)

    def predict(self, x: Any, batch_size: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Predicts queries; see `keras.Model.predict`.

        With `batch_norm="transductive"` pass a `batch_size` that holds all queries.
        """
        n_queries = np.shape(x)[0] if hasattr(x, "shape") and len(np.shape(x)) else 0
        size = batch_size or 32  # Keras's default
        if n_queries > size:
            self._warn(
                f"these {n_queries} queries come in batches of {size}, each normalised by itself: "
                f"pass batch_size={n_queries}"
            )
        elif n_queries == 1:
            self._warn("this one query is normalised by itself")
        return super().predict(x, batch_size, *args, **kwargs)

    @property
    def normalises_together(self) -> bool:
        """Whether a prediction depends on the other queries of its batch."""
        mode: Any = getattr(self.learner, "batch_norm", None)
        return normalises_together(mode, self.learner)

    def _warn(self, what: str) -> None:
        """Warns, once, that predictions depend on which queries come together."""
        if not self._has_warned and self.normalises_together:
            self._has_warned = True
            warnings.warn(
                'With batch_norm="transductive" a prediction depends on the other queries of its '
                f"batch, and {what}. Predict all queries of a task together, or adapt with "
                'batch_norm="support" '
                '(learner.with_batch_norm("support")), whose predictions do not depend on them.',
                stacklevel=3,
            )

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
