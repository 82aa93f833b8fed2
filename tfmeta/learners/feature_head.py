"""The base class of learners that fit a head to the support set's features."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.comparisons import (
    IN_GRAPH,
    Comparison,
    with_constants,
    without_missing,
)
from tfmeta.learners.metric_learner import MetricLearner, flat

Head = dict[str, tf.Tensor]
State = dict[str, Any]


class FeatureHead(MetricLearner):
    """Base class: a head is fitted to the features of a task's support set, in one go.

    A head is small, and sums of squares and solutions of equations lose digits: it is fitted in
    float64, and kept in `head_dtype`.
    """

    @property
    def head_dtype(self) -> str:
        """The dtype in which a head is kept and queries meet it."""
        return self.precise_dtype

    def fit_head(self, features: tf.Tensor, members: tf.Tensor) -> Head:
        """Fits the head of one task. Pure.

        Args:
            features: tf.Tensor `[S, d]` float64. Those of padding are any finite numbers.
            members: tf.Tensor `[S, n_way]` float64. 1 for the class of an example, 0 for all others
                and for padding. Classes may be without examples.

        Returns:
            The parts of the head.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement fit_head.")

    def head_logits(self, head: Head, features: Any, compare: Comparison) -> Any:
        """Returns the logits `[Q, n_way]` of queries.

        Args:
            head: dict. What `fit_head` returned.
            features: tensor `[Q, d]`, symbolic in a plain Keras model.
            compare: Comparison. The operations by which features meet the head.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement head_logits.")

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> State:
        """Fits the head. See `MetaLearner.adapt_task`."""
        members = self.members(support_y, support_mask, n_way)
        features, statistics = self.support_features(support_x, support_mask, training)
        return self.fitted_state(features, statistics, members)

    def fitted_state(self, features: tf.Tensor, statistics: Any, members: tf.Tensor) -> State:
        """Fits the head to features, and returns the state of the task.

        Args:
            features: tf.Tensor `[S, *f]`.
            statistics: what `query_features` takes.
            members: tf.Tensor `[S, n_way]`. See `MetricLearner.members`.
        """
        features = tf.cast(flat(features), tf.float64)
        # Of NaN, TensorFlow's solvers would raise errors that say nothing of the learner.
        is_finite = tf.reduce_all(tf.math.is_finite(features))
        features = tf.where(is_finite, features, tf.zeros_like(features))
        nan = tf.where(is_finite, tf.zeros([], features.dtype), np.nan)
        head = self.fit_head(features, tf.cast(members, tf.float64))
        n_examples = tf.reduce_sum(members, axis=0)
        return {
            **{name: tf.cast(part + nan, self.head_dtype) for name, part in head.items()},
            "is_missing": tf.cast(n_examples == 0, self.variable_dtype),
            "statistics": statistics,
        }

    def predict_task(
        self,
        state: State,
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Returns the head's logits. See `MetaLearner.predict_task`."""
        features = self.query_features(state["statistics"], query_x, query_mask, training)
        logits = self.head_logits(state, tf.cast(flat(features), self.head_dtype), IN_GRAPH)
        return without_missing(self.as_variables(logits), state["is_missing"])

    def plain_model(self, state: State) -> keras.Model | None:
        """Makes a copy of the encoder, followed by the head."""
        encoder = self.task_encoder(state["statistics"])
        if encoder is None:
            return None
        x = keras.Input(encoder.input_shape[1:], dtype=self.variable_dtype)
        features = keras.layers.Flatten(dtype=self.head_dtype)(encoder(x))
        return keras.Model(
            x, self.as_variables(self.head_logits(state, features, with_constants()))
        )


def class_means(features: tf.Tensor, members: tf.Tensor) -> tf.Tensor:
    """Returns the mean features `[n_way, d]` of classes; 0 for a class without examples.

    Args:
        features: tf.Tensor `[S, d]`.
        members: tf.Tensor `[S, n_way]`. As in `FeatureHead.fit_head`.
    """
    sums = tf.matmul(members, features, transpose_a=True)
    return tf.math.divide_no_nan(sums, tf.reduce_sum(members, axis=0)[:, None])
