"""Predictions after each inner step, in a loop of the graph."""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf

from tfmeta.learners.inner_batches import Support


class TakesInnerSteps(Protocol):
    """The part of a learner that `predictions_by_step` needs."""

    variable_dtype: str
    first_order: bool

    def start(self) -> tuple[dict[str, Any], Any]: ...
    def inner_step(
        self,
        state: dict[str, Any],
        memory: Any,
        support: Support,
        step: int | tf.Tensor,
        training: bool,
        first_order: bool,
    ) -> tuple[dict[str, Any], Any]: ...
    def with_statistics(
        self, state: dict[str, Any], support: Support, training: bool
    ) -> dict[str, Any]: ...
    def predict_with_weights(
        self, state: dict[str, Any], x: tf.Tensor, mask: tf.Tensor | None, training: bool
    ) -> tf.Tensor: ...


def predictions_by_step(
    learner: TakesInnerSteps,
    support: Support,
    query_x: tf.Tensor,
    query_mask: tf.Tensor | None,
    inner_steps: int,
) -> tf.Tensor:
    """Predicts the queries of one task after 0, 1, …, `inner_steps` inner steps.

    Args:
        learner: InnerLoopLearner. The learner.
        support: Support. The task's support set.
        query_x: tf.Tensor `[Q, *x]`.
        query_mask: tf.Tensor `[Q]` or None. 0 for padding.
        inner_steps: int. The number of steps, ≥ 0.

    Returns:
        `[inner_steps + 1, Q, n_way]` or `[inner_steps + 1, Q, *y]`.
    """

    def predict(state: dict[str, Any]) -> tf.Tensor:
        state = learner.with_statistics(state, support, training=False)
        predictions = learner.predict_with_weights(state, query_x, query_mask, training=False)
        return tf.cast(predictions, learner.variable_dtype)

    def next_step(
        step: tf.Tensor, state: dict[str, Any], memory: Any, predictions: tf.TensorArray
    ) -> tuple[Any, ...]:
        predictions = predictions.write(step, predict(state))
        state, memory = learner.inner_step(state, memory, support, step, False, learner.first_order)
        return step + 1, state, memory, predictions

    _, state, _, predictions = tf.while_loop(
        lambda step, *_: step < inner_steps,
        next_step,
        (
            tf.constant(0),
            *learner.start(),
            tf.TensorArray(learner.variable_dtype, size=inner_steps + 1),
        ),
        parallel_iterations=1,
    )
    return predictions.write(inner_steps, predict(state)).stack()
