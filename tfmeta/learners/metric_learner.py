"""The base class of learners that compare a query's features with those of the support set."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.contract import constructor_arguments
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.learners.task_inputs import check_labels
from tfmeta.networks import (
    BatchNorm,
    built_by_call,
    call_shared_network,
    check_batch_norm,
    check_network,
    check_output,
    copy_with_statistics,
    normalises_together,
    prepare_network,
    shape_of,
)


class MetricLearner(MetaLearner):
    """Base class: an encoder, the same for all tasks, and a comparison of its features.

    n_way is not fixed: it is the largest label of the support set plus one, so a learner may be
    trained with more ways than it is tested with. Tasks of a meta-batch that have fewer classes
    than the largest of them never predict the missing ones.

    Args:
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.
    """

    takes = "encoder"
    classes_from_support = True

    def __init__(
        self, encoder: keras.Model, *, batch_norm: BatchNorm = "transductive", **kwargs: Any
    ) -> None:
        check_network("encoder", encoder)
        prepare_network(encoder)
        check_batch_norm(batch_norm)
        kwargs.setdefault("dtype", encoder.dtype_policy)
        super().__init__(**kwargs)
        self.encoder = encoder
        self.batch_norm = batch_norm

    def build_if_possible(self) -> None:
        """Builds the learner if the encoder's shapes are known; call it last in __init__."""
        if self.encoder.built and hasattr(self.encoder, "output_shape"):
            self.build(None)

    def build(self, input_shape: Any) -> None:
        """Builds encoder and comparison; `input_shape` may be None if the shapes are known."""
        if input_shape is not None:
            self._remember_example_shape(input_shape["support_x"][2:])
        if self.encoder.built and hasattr(self.encoder, "output_shape"):
            features = self.encoder.output_shape
        else:
            # A subclassed encoder builds its layers and returns its shapes only when it is called.
            shape = tuple(input_shape["support_x"][2:])
            features = shape_of(built_by_call("The encoder", self.encoder, shape))
            check_output("The encoder", self.encoder, features)
        self.build_comparison(tuple(features[1:]))
        self.built = True

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        """Creates further weights, once the shape of an example's features is known."""

    # === Features ===

    def support_features(
        self, support_x: tf.Tensor, support_mask: tf.Tensor | None, training: bool
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns features `[S, *f]` of the support set, and statistics for `query_features`."""
        features, statistics = call_shared_network(
            self.encoder,
            support_x,
            part="support",
            batch_norm=self.batch_norm,
            mask=support_mask,
            training=training,
        )
        return tf.cast(features, self.variable_dtype), statistics

    def query_features(
        self,
        statistics: list[tf.Tensor],
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None,
        training: bool,
    ) -> tf.Tensor:
        """Returns features `[Q, *f]` of the queries."""
        features, _ = call_shared_network(
            self.encoder,
            query_x,
            part="queries",
            batch_norm=self.batch_norm,
            statistics=statistics,
            mask=query_mask,
            training=training,
        )
        return tf.cast(features, self.variable_dtype)

    def members(
        self,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        n_way: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns `[S, n_way]`: 1 for the class of an example, 0 for all others and for padding.

        Args:
            support_y: tf.Tensor `[S]`. Labels.
            support_mask: tf.Tensor `[S]` or None. 0 for padding.
            n_way: tf.Tensor, scalar int32, or None. The number of classes; the largest label plus
                one if None. Defaults to None.

        Raises:
            ValueError: If the labels are regression targets.
        """
        if support_y.shape.rank not in (None, 1):
            raise ValueError(
                f"{type(self).__name__} learns classes: support_y must be integer labels [T, S]; "
                f"got a task's of shape {tuple(support_y.shape)}."
            )
        labels = tf.cast(support_y, tf.int32)
        if support_mask is not None:
            labels = tf.where(tf.cast(support_mask, tf.bool), labels, -1)
        if n_way is None:
            n_way = tf.reduce_max(labels) + 1
        return tf.one_hot(labels, n_way, dtype=self.variable_dtype)

    # === Precision ===

    @property
    def precise_dtype(self) -> str:
        """The dtype of comparisons: the squares of features soon exceed half precision."""
        return keras.backend.result_type(self.variable_dtype, "float32")

    def as_variables(self, logits: Any) -> Any:
        """Casts logits of a more precise dtype to the learner's, none of them to −∞."""
        if keras.backend.standardize_dtype(logits.dtype) != self.variable_dtype:
            lowest = float(tf.as_dtype(self.variable_dtype).min)
            logits = keras.ops.cast(keras.ops.maximum(logits, lowest), self.variable_dtype)
        return logits

    # === What others want to know ===

    def input_network(self) -> keras.Model:
        return self.encoder

    def check_task(self, support_x: np.ndarray, support_y: np.ndarray) -> None:
        if support_y.ndim == 1:
            check_labels(support_y)

    def task_encoder(self, statistics: list[tf.Tensor]) -> keras.Model | None:
        """Makes a copy of the encoder that normalises by a task's statistics.

        Returns:
            A plain Keras model. None if queries are normalised by their own statistics, or if the
            encoder is a subclass whose shapes are unknown: no plain model could predict the same.
        """
        together = normalises_together(self.batch_norm, self.encoder)
        if together or not hasattr(self.encoder, "input_shape"):
            return None
        return copy_with_statistics(self.encoder, statistics)

    def get_config(self) -> dict[str, Any]:
        arguments = constructor_arguments(self, MetaLearner, family=MetricLearner)
        return {**super().get_config(), **arguments}


def flat(features: tf.Tensor) -> tf.Tensor:
    """Reshapes features `[N, *f]` to `[N, d]`."""
    return tf.reshape(features, [tf.shape(features)[0], -1])
