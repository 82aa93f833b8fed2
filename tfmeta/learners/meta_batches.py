"""Meta-batches: both functions of a task mapped over the tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.learners.graph_checks import require
from tfmeta.learners.keras_methods import KerasMethods
from tfmeta.learners.output_kinds import targets_of
from tfmeta.learners.task_inputs import check_targets, checked_inputs, label_checks
from tfmeta.networks import add_losses, collecting_losses, sum_of
from tfmeta.task_mapping import How, choose, map_tasks

# Tasks draw their dropout masks from seeds this far apart, so that no two layers' seeds collide.
TASK_SEED_STRIDE = 1_000_003


class MetaBatches(KerasMethods):
    """Maps a learner's two functions over the tasks of a meta-batch."""

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> tf.Tensor:
        """Adapts to every task of the meta-batch and predicts its queries. See `MetaLearner`."""
        inputs = checked_inputs(inputs, self.takes_unlabelled)
        self._remember_example_shape(inputs["query_x"].shape[2:])
        inputs = self._with_checked_labels(inputs)
        n_way = self._n_way(inputs)
        n_tasks = tf.shape(inputs["query_x"])[0]
        has_losses: list[bool] = []

        def run(elements: tuple[dict[str, tf.Tensor], tf.Tensor]) -> tuple[Any, ...]:
            episode, index = elements
            with collecting_losses() as losses:
                predictions, assigned = self.run_task(
                    lambda: self._predict_episode(episode, training, n_way), index, training
                )
            has_losses.append(bool(losses))
            total = sum_of(losses, self.variable_dtype)
            return (
                predictions,
                assigned,
                tf.zeros([], self.variable_dtype) if total is None else total,
            )

        predictions, assigned, losses = map_tasks(
            run,
            (inputs, first_index_of_replica(n_tasks) + tf.range(n_tasks)),
            (
                self.variable_dtype,
                [v.dtype for v in self._task_variables(training)],
                self.variable_dtype,
            ),
            self.mapping(),
        )
        if any(has_losses):
            self.add_loss(tf.cast(tf.reduce_mean(losses), keras.backend.floatx()))
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
        inputs = self._with_checked_labels(checked_inputs(inputs, self.takes_unlabelled))
        options = {"n_way": self._n_way(inputs)} if self.classes_from_support else {}

        def predict(episode: dict[str, tf.Tensor]) -> tf.Tensor:
            support = episode["support_x"], episode["support_y"], episode.get("support_mask")
            queries = episode["query_x"], episode.get("query_mask")
            return self.predict_task_by_step(*support, *queries, inner_steps, **options)

        # XLA cannot compile a vectorised loop.
        how = self.mapping()._replace(compiled=False)
        by_task = map_tasks(predict, inputs, tf.as_dtype(self.variable_dtype), how)
        return keras.ops.swapaxes(by_task, 0, 1)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measures one meta-batch, after a check of its labels; see `keras.Model.test_step`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = self._with_checked_targets(checked_inputs(x, self.takes_unlabelled), y)
        predictions = self(x, training=False)
        loss = self.compute_loss(x, y, predictions, sample_weight, training=False)
        self._track_loss(loss, tf.shape(x["query_x"])[0])
        logs = self.compute_metrics(x, y, predictions, sample_weight)
        logs.pop("skipped_steps", None)
        return logs

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Updates the compiled metrics by a meta-batch; see `keras.Model.compute_metrics`."""
        # At the end of data of unknown length there is a step without a meta-batch. Without this,
        # Keras's metrics count its queries, if their number is known before.
        with tf.control_dependencies(tf.nest.flatten(y_pred)):
            return super().compute_metrics(x, y, y_pred, sample_weight)

    def _track_loss(self, loss: tf.Tensor, n_tasks: tf.Tensor) -> None:
        """Adds the loss of a meta-batch to the mean that Keras reports."""
        tracker = keras_internals.loss_tracker(self)
        if tracker is not None:
            # Keras divides a loss by the number of replicas; the tracker wants it whole.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            with tf.control_dependencies([loss]):  # As in `compute_metrics`.
                tracker.update_state(loss * replicas, sample_weight=n_tasks)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the compiled loss, of targets that are not broadcast; see `keras.Model`."""
        check_targets("query_y", self.loss, y, y_pred)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def mapping(self) -> How:
        """Returns how tasks are mapped now: in a loop or all at once, compiled or not."""
        how = choose(self.task_mapping, self.tasks_at_once, self.compiles_tasks)
        # XLA needs the number of classes, which is counted from the labels, before it compiles.
        return how._replace(compiled=how.compiled and not self.classes_from_support)

    # === One task ===

    def run_task(
        self, run: Callable[[], Any], index: tf.Tensor, training: bool
    ) -> tuple[Any, list[tf.Tensor]]:
        """Runs a function of one task, without changing anything.

        Args:
            run: function. The function.
            index: tf.Tensor, scalar int32. The task's index in its meta-batch.
            training: bool. Whether this is meta-training.

        Returns:
            The function's result, and what layers would have assigned.
        """
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

    # === Labels ===

    def _with_checked_labels(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the inputs after checks of the support sets' labels."""
        labels, mask = inputs["support_y"], inputs.get("support_mask")
        if self.output_kind == "values" or labels.shape.rank != 2:
            return inputs
        limit, why = self.n_classes, f"the network tells {self.n_classes} classes apart"
        if self.classes_from_support:
            limit, why = tf.shape(labels)[1], "each class needs a support example"
        if limit is None:
            return inputs
        with tf.control_dependencies(require(label_checks("support_y", labels, mask, limit, why))):
            return {**inputs, "support_y": tf.identity(labels)}

    def _with_checked_targets(self, inputs: dict[str, tf.Tensor], y: Any) -> Any:
        """Returns the targets after checks of the queries' labels, if the loss takes labels."""
        if y is None:
            raise ValueError(
                "Episodes must be pairs (inputs, query_y), with the targets of the queries; got "
                "inputs alone."
            )
        y = y if isinstance(y, Mapping | list | tuple) else tf.convert_to_tensor(y)
        if (
            self.output_kind == "values"
            or not isinstance(y, tf.Tensor)
            or y.shape.rank != 2
            or not (isinstance(self.loss, str | keras.losses.Loss) or callable(self.loss))
            or targets_of(keras.losses.get(self.loss)) not in ("labels", "binary")
        ):
            return y
        limit, why = self.n_classes, f"the network tells {self.n_classes} classes apart"
        if self.classes_from_support:
            limit, why = self._n_way(inputs), "each class needs a support example"
        if limit is None:
            return y
        with tf.control_dependencies(require(label_checks("query_y", y, None, limit, why))):
            return tf.identity(y)

    def _n_way(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
        """Returns the number of classes of the meta-batch's largest task; None in regression."""
        labels, mask = inputs["support_y"], inputs.get("support_mask")
        if self.output_kind == "values" or labels.shape.rank != 2:
            return None
        labels = tf.cast(labels, tf.int32)
        if mask is not None:
            labels = tf.where(tf.cast(mask, tf.bool), labels, -1)
        return tf.reduce_max(labels) + 1

    # === What tasks change ===

    def _task_variables(self, training: bool) -> list[keras.Variable]:
        """Returns what a task in training may change: seeds and moving averages."""
        return keras_internals.assigned_by_layers(self) if training else []

    def _assign(self, values: list[tf.Tensor], training: bool) -> None:
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            mean = tf.distribute.ReduceOp.MEAN
            replica = tf.distribute.get_replica_context()
            values = [replica.all_reduce(mean, v) if v.dtype.is_floating else v for v in values]
        for variable, value in zip(self._task_variables(training), values, strict=True):
            variable.assign(value)

    def _remember_example_shape(self, shape: Any) -> None:
        """Called with the shape of an example whenever one is seen; `MetaLearner` keeps it."""


def first_index_of_replica(n_tasks: tf.Tensor) -> tf.Tensor:
    """Returns the index of this replica's first task, so that replicas draw other dropout masks."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:  # None: outside of a replica's step.
        return tf.constant(0)
    return tf.cast(replica.replica_id_in_sync_group, tf.int32) * n_tasks
