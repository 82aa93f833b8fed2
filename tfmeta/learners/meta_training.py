"""The meta-training step: the outer gradient, taken task by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.learners.gradients import gradients_of
from tfmeta.learners.graph_checks import NOT_FINITE, Check, all_finite, require
from tfmeta.learners.meta_batches import MetaBatches, first_index_of_replica
from tfmeta.learners.task_inputs import checked_inputs
from tfmeta.learners.training_task import TaskUpdate, TrainingTask
from tfmeta.networks import collecting_losses, sum_of
from tfmeta.task_mapping import sum_tasks


class MetaTraining(MetaBatches):
    """Trains a learner on meta-batches."""

    def train_step(self, data: Any) -> dict[str, Any]:
        """Takes one meta-training step: Keras's own to rounding, but flat in memory and faster.

        The outer gradient is taken per task, inside the loop over tasks, and summed: no task's
        intermediate results outlive it.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        keras_internals.clear_losses(self)
        inputs = checked_inputs(x, self.takes_unlabelled)
        self._remember_example_shape(inputs["query_x"].shape[2:])
        if not self.built:
            self(inputs)
        check_optimizer_of_replicas(
            self.optimizer, tf.distribute.get_strategy().num_replicas_in_sync
        )
        inputs, y = self._with_checked_labels(inputs), self._with_checked_targets(inputs, y)
        n_tasks = tf.shape(inputs["query_x"])[0]
        weights = self._task_weights(n_tasks, sample_weight)
        how = self.mapping()
        is_own = type(self).task_gradients is not MetaTraining.task_gradients
        # Weights that all tasks share have one gradient, which is cheaper than one for each task.
        skips = self.skipped_steps is not None
        shares_gradient = how.vectorized and self.shares_weights and not is_own
        # A skipped step must not assign moving averages, which a call of all tasks does.
        if weights is None or (shares_gradient and not skips):
            return self._train_step_of_all(inputs, y, sample_weight)
        n_way = self._n_way(inputs)

        def update_of(element: dict[str, Any]) -> tuple[Any, tf.Tensor]:
            update = self.task_gradients(
                TrainingTask(
                    element["inputs"],
                    element["y"],
                    element.get("sample_weight"),
                    element["weight"][0],
                    element["index"][0],
                    n_way,
                    1 / tf.cast(n_tasks, self.variable_dtype),
                )
            )
            assigned = [
                a / tf.cast(n_tasks, a.dtype) if a.dtype.is_floating else a for a in update.assigned
            ]
            return (update.loss, update.gradients, assigned), update.predictions

        elements = {"inputs": inputs, "y": y, "weight": weights}
        elements["index"] = first_index_of_replica(n_tasks) + tf.range(n_tasks)
        if sample_weight is not None:
            elements["sample_weight"] = sample_weight
        (loss, gradients, assigned), predictions = sum_tasks(
            update_of,
            elements,
            (
                tf.zeros([], self.variable_dtype),
                [tf.zeros(v.shape, v.dtype) for v in self.trainable_variables],
                [
                    tf.zeros(v.shape, v.dtype) if tf.as_dtype(v.dtype).is_floating else v.value
                    for v in self._task_variables(training=True)
                ],
            ),
            self.variable_dtype,
            how,
        )
        if self.skipped_steps is not None:
            predictions = self._take_step_if_finite(
                self.skipped_steps, loss, gradients, assigned, predictions, n_tasks
            )
        else:
            gradients, assigned = self._if_finite(loss, gradients, assigned)
            self._assign(assigned, training=True)
            self._take_outer_step(loss, gradients, n_tasks)
        return self.compute_metrics(x, y, predictions, sample_weight=sample_weight)

    def _train_step_of_all(self, x: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
        """Takes a step by a loss that is no sum over tasks, as Keras does: all tasks at once."""
        if self.skipped_steps is not None:
            raise ValueError(
                "skip_nonfinite needs a compiled loss that is a mean over tasks; got "
                f"{self.loss!r} with sample weights or regularisers."
            )
        if type(self).task_gradients is not MetaTraining.task_gradients:
            raise ValueError(
                f"{type(self).__name__} needs a compiled loss that is a mean over tasks; got "
                f"{self.loss!r} with sample weights or regularisers."
            )
        with tf.GradientTape() as tape:
            predictions = self(x, training=True)
            loss = self.compute_loss(
                x=x, y=y, y_pred=predictions, sample_weight=sample_weight, training=True
            )
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = gradients_of(tape, scaled_loss, self.trainable_variables)
        gradients, _ = self._if_finite(loss, gradients, [])
        self._take_outer_step(loss, gradients, tf.shape(x["query_x"])[0])
        return self.compute_metrics(x, y, predictions, sample_weight=sample_weight)

    def _if_finite(
        self, loss: tf.Tensor, gradients: list[tf.Tensor], assigned: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns gradients and assigned values after a check that all numbers are finite."""
        self.check_trainable()
        step = tf.identity(self.optimizer.iterations) + 1
        checks = [Check(tf.math.is_finite(loss), f"The loss{NOT_FINITE}", step)]
        # An optimizer that scales losses skips such a step by itself, and lowers the scale.
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            checks.append(Check(all_finite(gradients), f"The loss's gradient{NOT_FINITE}", step))
        with tf.control_dependencies(require(checks)):
            return [tf.identity(g) for g in gradients], [tf.identity(a) for a in assigned]

    def _take_step_if_finite(
        self,
        skipped_steps: keras.metrics.Sum,
        loss: tf.Tensor,
        gradients: list[tf.Tensor],
        assigned: list[tf.Tensor],
        predictions: tf.Tensor,
        n_tasks: tf.Tensor,
    ) -> tf.Tensor:
        """Takes a step, or counts it if it is not finite; returns predictions for metrics."""
        self.check_trainable()
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError(
                "skip_nonfinite is for one device: another replica would take its part of a step "
                "that this one skips."
            )
        is_finite = tf.math.is_finite(loss)
        # As in `_if_finite`: skipped here, such a step would not lower the scale.
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            is_finite &= all_finite(gradients)
        skipped_steps.update_state(1 - tf.cast(is_finite, tf.float32))
        kept = [
            tf.where(is_finite, value, variable.value)
            for value, variable in zip(assigned, self._task_variables(training=True), strict=True)
        ]
        self._assign(kept, training=True)
        self._build_optimizer()

        def take() -> tf.Tensor:
            self._take_outer_step(loss, gradients, n_tasks)
            return tf.constant(True)

        tf.cond(is_finite, take, lambda: tf.constant(False))
        return tf.where(tf.math.is_finite(predictions), predictions, tf.zeros_like(predictions))

    def _build_optimizer(self) -> None:
        if not self.optimizer.built:
            with tf.init_scope():
                self.optimizer.build(self.outer_variables)

    def _take_outer_step(
        self, loss: tf.Tensor, gradients: list[tf.Tensor], n_tasks: tf.Tensor
    ) -> None:
        def apply(gradients: list[tf.Tensor]) -> None:
            self.optimizer.apply_gradients(zip(gradients, self.outer_variables, strict=True))

        if self.mapping().compiled and tf.distribute.get_strategy().num_replicas_in_sync == 1:
            # An optimizer takes a dozen small operations for each variable.
            self._build_optimizer()
            apply = tf.function(apply, jit_compile=True, autograph=False)
        # Else the optimizer counts a step that was not taken, or that got no meta-batch.
        with tf.control_dependencies(gradients):
            apply(gradients)
        self._track_loss(loss, n_tasks)

    # === One task ===

    def training_task(self, meta_batch: Any, index: int) -> TrainingTask:
        """Returns one task of a meta-batch, by itself.

        Args:
            meta_batch: tuple. An element of a data set of episodes.
            index: int. The task's index in it.
        """
        inputs, y, sample_weight = keras.utils.unpack_x_y_sample_weight(meta_batch)
        inputs = checked_inputs(inputs, self.takes_unlabelled)
        n_way, whole = self._n_way(inputs), tf.ones([], self.variable_dtype)
        inputs, y, sample_weight = keras.tree.map_structure(
            lambda t: None if t is None else tf.convert_to_tensor(t)[index : index + 1],
            (inputs, y, sample_weight),
        )
        return TrainingTask(inputs, y, sample_weight, whole, tf.constant(index), n_way, whole)

    def task_gradients(self, task: TrainingTask) -> TaskUpdate:
        """Takes the outer gradient of one task; a learner with another outer update overrides it.

        Args:
            task: TrainingTask. The task.

        Returns:
            The task's loss, gradients, predictions and what its layers assigned.
        """
        with tf.GradientTape() as tape:
            with collecting_losses() as losses:
                predictions, assigned = self.run_task(
                    lambda: self._predict_episode(task.episode, True, task.n_way), task.index, True
                )
            loss, scaled_loss = self._task_loss(task, predictions, losses)
        gradients = gradients_of(tape, scaled_loss, self.trainable_variables)
        return TaskUpdate(loss, gradients, predictions, assigned)

    def _task_loss(
        self, task: TrainingTask, predictions: tf.Tensor, layer_losses: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns a task's part in the loss of the meta-batch, and that scaled.

        The part is the compiled loss of its predictions, times the task's weight, and what layers
        add to it, times the task's share.
        """
        loss = self.compute_loss(
            x=task.inputs,
            y=task.y,
            y_pred=predictions[None],
            sample_weight=task.sample_weight,
            training=True,
        )
        loss *= tf.cast(task.weight, loss.dtype)
        added = sum_of(layer_losses, loss.dtype)
        if added is not None:
            added = keras_internals.additional_loss(self, added)
            loss += tf.cast(task.share, loss.dtype) * added
        return loss, self.optimizer.scale_loss(loss)

    def _task_weights(
        self, n_tasks: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tf.Tensor | None:
        """Returns `[T]` factors by which the tasks' losses sum up to the loss of the meta-batch.

        | the loss's reduction | factor of a task |
        | --- | --- |
        | `sum_over_batch_size`, `mean` (also of a loss given as a name or function) | 1 / T |
        | `mean_with_sample_weight` | the task's share of the sample weights |
        | `sum`, without regularisers, which it would count once per task | 1 |

        None if the compiled loss is no such sum.
        """
        if not (isinstance(self.loss, str | keras.losses.Loss) or callable(self.loss)):
            return None
        reduction = getattr(self.loss, "reduction", "mean")
        floatx = keras.backend.floatx()
        if reduction in ("sum_over_batch_size", "mean") or (
            reduction == "mean_with_sample_weight" and sample_weight is None
        ):
            return tf.fill([n_tasks], 1 / tf.cast(n_tasks, floatx))
        if reduction == "mean_with_sample_weight":
            weight = tf.cast(tf.reshape(sample_weight, [n_tasks, -1]), floatx)
            return tf.math.divide_no_nan(tf.reduce_sum(weight, axis=1), tf.reduce_sum(weight))
        if reduction == "sum" and not self.losses:
            return tf.ones([n_tasks], floatx)
        return None


def check_optimizer_of_replicas(optimizer: keras.optimizers.Optimizer, n_replicas: int) -> None:
    """Raises a ValueError if the optimizer cannot take one device's step on several replicas.

    Args:
        optimizer: keras.optimizers.Optimizer. The outer optimizer.
        n_replicas: int. The number of replicas.
    """
    if n_replicas == 1:
        return
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for name in ("clipnorm", "global_clipnorm", "clipvalue"):
        if getattr(inner, name, None):
            raise ValueError(
                f"Keras clips gradients ({name}) before it sums them over the replicas, which is "
                f"another step than that of one device: leave {name} out, or train on one device."
            )
    for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
        if getattr(inner, name, None):
            raise ValueError(
                f"Keras has no {name} on several replicas, because it would synchronise them "
                f"within a condition: leave {name} out, or train on one device."
            )
