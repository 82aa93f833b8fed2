"""Meta-batches: both functions of a task mapped over the tasks, and the meta-training step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.data.image_reader import explained
from tfmeta.learners.contract import Contract
from tfmeta.learners.gradients import derivatives_explained, gradients_of
from tfmeta.learners.task_inputs import checked_inputs
from tfmeta.learners.training_task import TaskUpdate, TrainingTask
from tfmeta.networks import add_losses, collecting_losses, sum_of
from tfmeta.threads import tasks_at_once

# Tasks draw their dropout masks from seeds this far apart, so that no two layers' seeds collide.
TASK_SEED_STRIDE = 1_000_003


class MetaTraining(Contract):
    """Maps a learner's two functions over the tasks of a meta-batch."""

    # === Keras ===

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> tf.Tensor:
        """Adapts to every task of the meta-batch and predicts its queries. See `MetaLearner`."""
        inputs = checked_inputs(inputs)
        self._remember_example_shape(inputs["query_x"].shape[2:])
        n_way = self._n_way(inputs)
        has_losses: list[bool] = []

        def run(elements: tuple[dict[str, tf.Tensor], tf.Tensor]) -> tuple[Any, ...]:
            episode, index = elements
            with collecting_losses() as losses:
                predictions, assigned = self._run_task(
                    lambda: self._predict_episode(episode, training, n_way), index, training
                )
            has_losses.append(bool(losses))
            total = sum_of(losses, self.variable_dtype)
            return (
                predictions,
                assigned,
                tf.zeros([], self.variable_dtype) if total is None else total,
            )

        predictions, assigned, losses = tf.map_fn(
            # As Keras runs layers: without AutoGraph, whose conversion slows every eager call.
            tf.autograph.experimental.do_not_convert(run),
            (inputs, tf.range(tf.shape(inputs["query_x"])[0])),
            fn_output_signature=(
                self.variable_dtype,
                [v.dtype for v in self._task_variables(training)],
                self.variable_dtype,
            ),
            parallel_iterations=None if tf.executing_eagerly() else tasks_at_once(),
        )
        if any(has_losses):
            self.add_loss(tf.reduce_mean(losses))
        self._assign(
            [
                tf.reduce_mean(a, axis=0) if a.dtype.is_floating else tf.reduce_max(a, axis=0)
                for a in assigned
            ],
            training,
        )
        return predictions

    def predict_by_step(self, inputs: Mapping[str, Any], inner_steps: int) -> tf.Tensor:
        """Predicts the queries of every task after 0, 1, …, `inner_steps` inner steps.

        Args:
            inputs: dict. The inputs of a meta-batch; see `MetaLearner`.
            inner_steps: int. The number of steps, ≥ 0.

        Returns:
            `[inner_steps + 1, T, Q, n_way]` logits, or `[inner_steps + 1, T, Q, *y]`.

        Raises:
            ValueError: If this learner has no inner steps, or is not defined for so many.
        """
        inputs = checked_inputs(inputs)

        def predict(episode: dict[str, tf.Tensor]) -> tf.Tensor:
            support = episode["support_x"], episode["support_y"], episode.get("support_mask")
            queries = episode["query_x"], episode.get("query_mask")
            return self.predict_task_by_step(*support, *queries, inner_steps)

        by_task = tf.map_fn(
            tf.autograph.experimental.do_not_convert(predict),
            inputs,
            fn_output_signature=tf.as_dtype(self.variable_dtype),
            parallel_iterations=None if tf.executing_eagerly() else tasks_at_once(),
        )
        return keras.ops.swapaxes(by_task, 0, 1)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Takes one meta-training step: Keras's own to rounding, but flat in memory and faster.

        The outer gradient is taken per task, inside the loop over tasks, and summed: no task's
        intermediate results outlive it.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = self._task_weights(tf.shape(y)[0], sample_weight)
        if weights is None:
            if type(self).task_gradients is not MetaTraining.task_gradients:
                raise ValueError(
                    f"{type(self).__name__} needs a compiled loss that is a mean over tasks; got "
                    f"{self.loss!r} with sample weights or regularisers."
                )
            with derivatives_explained():
                return super().train_step(data)
        keras_internals.clear_losses(self)
        inputs = checked_inputs(x)
        self._remember_example_shape(inputs["query_x"].shape[2:])
        if not self.built:
            self(inputs)
        n_tasks = tf.shape(inputs["query_x"])[0]
        n_way = self._n_way(inputs)
        variables = self.trainable_variables

        def add_task(
            index: tf.Tensor,
            loss: tf.Tensor,
            gradients: list[tf.Tensor],
            assigned: list[tf.Tensor],
            predictions: tf.TensorArray,
        ) -> tuple[Any, ...]:
            def only(tensor: tf.Tensor) -> tf.Tensor:
                return tensor[index : index + 1]

            update = self.task_gradients(
                TrainingTask(
                    {name: only(tensor) for name, tensor in inputs.items()},
                    only(y),
                    None if sample_weight is None else only(sample_weight),
                    weights[index],
                    index,
                    n_way,
                    1 / tf.cast(n_tasks, self.variable_dtype),
                )
            )
            return (
                index + 1,
                loss + tf.cast(update.loss, loss.dtype),
                [
                    a + tf.convert_to_tensor(b)
                    for a, b in zip(gradients, update.gradients, strict=True)
                ],
                [
                    a + b / tf.cast(n_tasks, b.dtype) if b.dtype.is_floating else tf.maximum(a, b)
                    for a, b in zip(assigned, update.assigned, strict=True)
                ],
                predictions.write(index, update.predictions),
            )

        _, loss, gradients, assigned, predictions = tf.while_loop(
            lambda index, *_: index < n_tasks,
            add_task,
            (
                tf.constant(0),
                tf.zeros([], self.variable_dtype),
                [tf.zeros(v.shape, v.dtype) for v in variables],
                [
                    tf.zeros(v.shape, v.dtype) if tf.as_dtype(v.dtype).is_floating else v.value
                    for v in self._task_variables(training=True)
                ],
                tf.TensorArray(self.variable_dtype, size=n_tasks),
            ),
            parallel_iterations=tasks_at_once(),
        )
        self._assign(assigned, training=True)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        tracker = keras_internals.loss_tracker(self)
        if tracker is not None:
            # Keras divides a loss by the number of replicas; the tracker wants it whole.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            tracker.update_state(loss * replicas, sample_weight=n_tasks)
        return self.compute_metrics(x, y, predictions.stack(), sample_weight=sample_weight)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Meta-trains; see `keras.Model.fit`.

        Raises:
            ValueError: If there is a `class_weight`: a label stands for another class in each task.
        """
        _refuse_class_weight(keras.Model.fit, self, *args, **kwargs)
        with explained():
            return super().fit(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Takes one step; see `keras.Model.train_on_batch`, and `fit` for `class_weight`."""
        _refuse_class_weight(keras.Model.train_on_batch, self, *args, **kwargs)
        return super().train_on_batch(*args, **kwargs)

    def make_train_function(self, force: bool = False) -> None:
        """Makes Keras's function, but builds the optimizer first, so the step is traced once."""
        if self.built and self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        super().make_train_function(force)

    # === One task ===

    def task_gradients(self, task: TrainingTask) -> TaskUpdate:
        """Takes the outer gradient of one task; a learner with another outer update overrides it.

        Args:
            task: TrainingTask. The task.

        Returns:
            The task's loss, gradients, predictions and what its layers assigned.
        """
        with tf.GradientTape() as tape:
            with collecting_losses() as losses:
                predictions, assigned = self._run_task(
                    lambda: self._predict_episode(task.episode, True, task.n_way), task.index, True
                )
            loss, scaled_loss = self._task_loss(task, predictions, losses)
        gradients = gradients_of(tape, scaled_loss, self.trainable_variables)
        return TaskUpdate(loss, gradients, predictions, assigned)

    def _run_task(
        self, run: Callable[[], Any], index: tf.Tensor, training: bool
    ) -> tuple[Any, list[tf.Tensor]]:
        """Runs a function of one task; returns its result, and what layers would have assigned."""
        variables = self._task_variables(training)
        offsets = [
            keras_internals.shifted_seed(v, index * TASK_SEED_STRIDE)
            if keras_internals.is_seed_state(v)
            else None
            for v in variables
        ]
        mapping = [
            (v, v.value if offset is None else v.value + offset)
            for v, offset in zip(variables, offsets, strict=True)
        ]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = run()
        add_losses(scope.losses)
        values = [tf.convert_to_tensor(scope.get_current_value(v)) for v in variables]
        assigned = [
            value if offset is None else value - offset
            for value, offset in zip(values, offsets, strict=True)
        ]
        return outputs, assigned

    def _predict_episode(
        self, episode: dict[str, tf.Tensor], training: bool, n_way: tf.Tensor | None
    ) -> tf.Tensor:
        state = self.adapt_task(
            episode["support_x"],
            episode["support_y"],
            episode.get("support_mask"),
            training=training,
            n_way=n_way,
        )
        predictions = self.predict_task(
            state, episode["query_x"], episode.get("query_mask"), training=training
        )
        return tf.cast(predictions, self.variable_dtype)

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

    # === The meta-batch ===

    def _n_way(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
        """Returns the number of classes of the meta-batch's largest task; None in regression."""
        labels, mask = inputs["support_y"], inputs.get("support_mask")
        if self.output_kind == "values" or labels.shape.rank != 2:
            return None
        labels = tf.cast(labels, tf.int32)
        if mask is not None:
            labels = tf.where(tf.cast(mask, tf.bool), labels, -1)
        return tf.reduce_max(labels) + 1

    def _task_variables(self, training: bool) -> list[keras.Variable]:
        """Returns what a task in training may change: seeds and moving averages."""
        return self.non_trainable_variables if training else []

    def _assign(self, values: list[tf.Tensor], training: bool) -> None:
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            mean = tf.distribute.ReduceOp.MEAN
            replica = tf.distribute.get_replica_context()
            values = [replica.all_reduce(mean, v) if v.dtype.is_floating else v for v in values]
        for variable, value in zip(self._task_variables(training), values, strict=True):
            variable.assign(value)

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

    def _remember_example_shape(self, shape: Any) -> None:
        """Called with the shape of an example whenever one is seen; `MetaLearner` keeps it."""


def _refuse_class_weight(method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    given = inspect.signature(method).bind_partial(*args, **kwargs).arguments
    if given.get("class_weight") is not None:
        raise ValueError(
            "A learner takes no class_weight, for a label stands for another class in each task: "
            "weigh queries by sample weights [T, Q] instead, the third part of a data set's items."
        )
