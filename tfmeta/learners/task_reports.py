"""Looks at the tasks of a meta-batch one by one, as a step of meta-training sums them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfmeta.learners.meta_training import MetaTraining
from tfmeta.learners.training_task import TrainingTask

# How many weights are named at most.
MOST_NAMES = 3


class TaskReport(NamedTuple):
    """One task of a meta-batch.

    Attributes:
        task: int. Its index in the meta-batch.
        loss: float. The loss of its queries, with what its layers add.
        gradient_norm: float. The norm of its meta-gradient, over all weights.
        trouble: str or None. A sentence about what is not finite, without its full stop; None if
            all is.
    """

    task: int
    loss: float
    gradient_norm: float
    trouble: str | None


def report_tasks(learner: MetaTraining, meta_batch: Any) -> Iterator[TaskReport]:
    """Looks at each task of a meta-batch, in training, without changing the learner.

    Args:
        learner: MetaLearner. The learner, built and compiled.
        meta_batch: tuple. An element of a data set of episodes.

    Yields:
        A report on each task.
    """
    n_tasks = int(tf.shape(keras.tree.flatten(meta_batch)[0])[0])
    scale = float(learner.optimizer.scale_loss(tf.constant(1.0)))
    for index in range(n_tasks):
        task = learner.training_task(meta_batch, index)
        update = learner.task_gradients(task)
        norm = float(tf.linalg.global_norm(update.gradients)) / scale
        loss = float(update.loss)
        trouble = None
        if not (math.isfinite(loss) and math.isfinite(norm)):
            trouble = _trouble(learner, task, loss, update.gradients)
        yield TaskReport(index, loss, norm, trouble)


def _trouble(
    learner: MetaTraining, task: TrainingTask, loss: float, gradients: list[tf.Tensor]
) -> str:
    """Says what is not finite first."""
    for name, tensor in [*task.episode.items(), ("query_y", task.y)]:
        if not _is_finite(tensor):
            return f"its {name} is not finite"
    episode = task.episode
    support = episode["support_x"], episode["support_y"], episode.get("support_mask")
    # Seeds and moving averages stay as they are, and dropout's masks are those of the step.
    found, _ = learner.run_task(
        lambda: learner.first_not_finite(*support, training=True), task.index, True
    )
    if found is not None:
        step, name = found
        return f"inner step {step} made {name} not finite" if step else f"{name} is not finite"
    if not math.isfinite(loss):
        return "the loss of its queries is not finite"
    names = [
        variable.path
        for variable, gradient in zip(learner.outer_variables, gradients, strict=True)
        if not _is_finite(gradient)
    ]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"its meta-gradient by {', '.join(names[:MOST_NAMES])}{more} is not finite"


def _is_finite(tensor: tf.Tensor) -> bool:
    return not tensor.dtype.is_floating or bool(tf.reduce_all(tf.math.is_finite(tensor)))
