"""One task in a step of meta-training, and its part in the step."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class TrainingTask(NamedTuple):
    """One task of a meta-batch, in a training step."""

    inputs: dict[str, tf.Tensor]  # a meta-batch of this one task
    y: tf.Tensor  # [1, Q] or [1, Q, *y]: its targets
    sample_weight: tf.Tensor | None  # [1, Q]
    weight: tf.Tensor  # scalar: the task's share in the loss of the meta-batch
    index: tf.Tensor  # scalar int32: the task's index in its meta-batch
    n_way: tf.Tensor | None  # scalar int32: as in `adapt_task`
    share: tf.Tensor  # scalar: 1 / T, the share of what the task's layers add to the loss

    @property
    def episode(self) -> dict[str, tf.Tensor]:
        """The inputs without their first dimension."""
        return {name: tensor[0] for name, tensor in self.inputs.items()}


class TaskUpdate(NamedTuple):
    """The part of one task in a training step."""

    loss: tf.Tensor  # scalar: the task's loss times its weight
    gradients: list[tf.Tensor]  # by `trainable_variables`; scaled, if the optimizer scales losses
    predictions: tf.Tensor  # [Q, n_way] or [Q, *y]
    assigned: list[tf.Tensor]  # what layers would have assigned to the task's variables
