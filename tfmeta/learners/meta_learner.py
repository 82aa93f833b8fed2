"""The contract: a meta-learner maps (support set, queries) to the predictions of the queries."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self

import keras
import numpy as np
import tensorflow as tf

from tfmeta import preset_files, zoo
from tfmeta.data.images import ImageFormat
from tfmeta.learners.adapted_model import AdaptedModel, Layout
from tfmeta.learners.functional import BatchNorm
from tfmeta.threads import tasks_at_once

REQUIRED_INPUTS = ("support_x", "support_y", "query_x")
OPTIONAL_INPUTS = ("support_mask", "query_mask")

# Tasks draw their dropout masks from seeds this far apart, so that no two layers' seeds collide.
SEED_STRIDE = 1_000_003


class MetaLearner(keras.Model):
    """Base class of all learners: maps two pure functions of one task over a meta-batch.

    A learner supplies `adapt_task` and `predict_task`. Everything else is Keras's own: `compile`,
    `fit`, `evaluate`, `predict`, callbacks, saving. The model's inputs are a dictionary:

    - `support_x`: `[T, S, *x]`, the support examples of `T` tasks,
    - `support_y`: `[T, S]` integer labels from 0 to n_way - 1, or `[T, S, *y]` floats (regression),
    - `query_x`: `[T, Q, *x]`,
    - `support_mask` (optional): `[T, S]`, 1 for an example, 0 for padding,
    - `query_mask` (optional): `[T, Q]`, likewise; only a normalisation over the queries needs it.

    Its output is `[T, Q, n_way]` logits, or `[T, Q, *y]`. The targets of `fit` are `query_y`,
    `[T, Q]` or `[T, Q, *y]`; sample weights `[T, Q]` mask padded queries.

    Example:

    >>> class NearestMean(MetaLearner):
    ...     def adapt_task(self, support_x, support_y, support_mask=None, training=False):
    ...         members = tf.one_hot(tf.cast(support_y, tf.int32), 2, axis=0)
    ...         return members @ support_x / tf.reduce_sum(members, axis=1, keepdims=True)
    ...
    ...     def predict_task(self, state, query_x, query_mask=None, training=False):
    ...         return -tf.reduce_sum((query_x[:, None] - state[None]) ** 2, axis=-1)
    >>> episode = {
    ...     "support_x": np.array([[[0.0], [1.0]]], "float32"),
    ...     "support_y": np.array([[0, 1]]),
    ...     "query_x": np.array([[[0.1], [0.9], [0.8]]], "float32"),
    ... }
    >>> NearestMean()(episode).numpy().argmax(axis=-1)
    array([[0, 1, 1]])
    """

    def __init__(self, **kwargs: Any) -> None:
        # Targets among the inputs must keep their precision; the inner networks cast by themselves.
        super().__init__(autocast=False, **kwargs)
        # XLA makes the mapped, nested gradients several times slower.
        self.supports_jit = False
        self._adapt_function: Any = None
        self._predict_functions: dict[str, Any] = {}
        self._seen_shape: tuple[int, ...] | None = None

    @property
    def compute_dtype(self) -> str:
        """That of the variables: under a mixed policy the networks cast by themselves.

        Else Keras would hand out all variables in half precision, and weights would adapt in it.
        """
        return str(self.variable_dtype)

    @property
    def _default_save_signature(self) -> None:
        """None: Keras would guess that a learner inside of an exported model takes an array."""

    @property
    def example_shape(self) -> tuple[int, ...] | None:
        """The shape of one example, where it is known.

        The one that the network or encoder takes; if that takes several, or does not tell, the one
        that the learner was last built for, called with or adapted to.
        """
        # A learner that has both gives the network the encoder's features.
        network = getattr(self, "encoder", getattr(self, "network", None))
        shape = getattr(network, "input_shape", None)
        if isinstance(shape, list):  # CAVIA's network takes a context, too.
            shape = shape[0]
        if isinstance(shape, tuple) and None not in shape[1:]:
            return shape[1:]
        return self._seen_shape

    def _see(self, shape: Any) -> None:
        """Remembers the shape of an example, if it is known in full."""
        shape = tf.TensorShape(shape)
        if shape.is_fully_defined():
            self._seen_shape = tuple(shape)

    # === What a learner supplies ===

    @property
    def output_kind(self) -> Literal["logits", "scores", "values"]:
        """What `predict_task` returns: logits or scores (from 0 to 1) of classes, or values."""
        return "logits"

    def prediction_shape(self, example_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of one example's prediction; None where each task's labels decide it."""
        return None

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> Any:
        """Learns one task from its support set. Pure: changes no variable unless `training`.

        Args:
            support_x: `[S, *x]`.
            support_y: `[S]` integers, or `[S, *y]` floats. `fit` may have turned integers into
                floats: cast them where they are used.
            support_mask: `[S]`, 1 for an example and 0 for padding, or None (no padding).
            training: Whether this is meta-training. What Keras layers assign then (seeds, moving
                averages) is kept apart per task and written once per call, averaged over tasks.

        Returns:
            The state of the task: any nesting of dictionaries, lists, tuples and tensors.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement adapt_task.")

    def predict_task(
        self,
        state: Any,
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Predicts the queries of one task.

        Args:
            state: What `adapt_task` returned.
            query_x: `[Q, *x]`.
            query_mask: `[Q]`, 1 for a query and 0 for padding, or None (no padding).
            training: As in `adapt_task`.

        Returns:
            `[Q, n_way]` logits, or `[Q, *y]`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement predict_task.")

    # === Keras ===

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> tf.Tensor:
        """Adapts to every task of the meta-batch and predicts its queries. See the class."""
        inputs = _checked_inputs(inputs)
        self._see(inputs["query_x"].shape[2:])
        n_tasks = tf.shape(inputs["query_x"])[0]
        predictions, updates = tf.map_fn(
            # As Keras runs layers: without AutoGraph, whose conversion slows every eager call.
            tf.autograph.experimental.do_not_convert(
                lambda elements: self._run_task(elements[0], elements[1], training)
            ),
            (inputs, tf.range(n_tasks)),
            fn_output_signature=(
                self.variable_dtype,
                [v.dtype for v in self._task_variables(training)],
            ),
            parallel_iterations=None if tf.executing_eagerly() else tasks_at_once(),
        )
        self._commit(
            [
                tf.reduce_mean(u, axis=0) if u.dtype.is_floating else tf.reduce_max(u, axis=0)
                for u in updates
            ],
            training,
        )
        return predictions

    def train_step(self, data: Any) -> dict[str, Any]:
        """One meta-training step: equal to Keras's own to rounding, but flat in memory and faster.

        The outer gradient is taken per task, inside the loop over tasks, and summed: no task's
        intermediate results outlive it.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = self._task_weights(tf.shape(y)[0], sample_weight)
        if weights is None:
            if type(self).task_gradients is not MetaLearner.task_gradients:
                raise ValueError(
                    f"{type(self).__name__} needs a compiled loss that is a mean over tasks; got "
                    f"{self.loss!r} with sample weights or regularisers."
                )
            return super().train_step(data)
        inputs = _checked_inputs(x)
        self._see(inputs["query_x"].shape[2:])
        if not self.built:
            self(inputs)
        n_tasks = tf.shape(inputs["query_x"])[0]
        variables = self.trainable_variables

        def one_task(
            index: tf.Tensor,
            loss: tf.Tensor,
            gradients: list[tf.Tensor],
            updates: list[tf.Tensor],
            predictions: tf.TensorArray,
        ) -> tuple[Any, ...]:
            def task(tensor: tf.Tensor) -> tf.Tensor:
                return tensor[index : index + 1]

            task_loss, task_gradients, prediction, task_updates = self.task_gradients(
                {name: task(tensor) for name, tensor in inputs.items()},
                task(y),
                None if sample_weight is None else task(sample_weight),
                weights[index],
                index,
            )
            return (
                index + 1,
                loss + tf.cast(task_loss, loss.dtype),
                [
                    a + tf.convert_to_tensor(b)
                    for a, b in zip(gradients, task_gradients, strict=True)
                ],
                [
                    a + b / tf.cast(n_tasks, b.dtype) if b.dtype.is_floating else tf.maximum(a, b)
                    for a, b in zip(updates, task_updates, strict=True)
                ],
                predictions.write(index, prediction),
            )

        _, loss, gradients, updates, predictions = tf.while_loop(
            lambda index, *_: index < n_tasks,
            one_task,
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
        self._commit(updates, training=True)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                # Keras divides a loss by the number of replicas; the tracker wants it whole.
                replicas = tf.distribute.get_strategy().num_replicas_in_sync
                metric.update_state(loss * replicas, sample_weight=n_tasks)
        return self.compute_metrics(x, y, predictions.stack(), sample_weight=sample_weight)

    def make_train_function(self, force: bool = False) -> None:
        """As in Keras, but the step is traced once: what makes variables is traced twice."""
        if self.built and self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        super().make_train_function(force)

    # === One task ===

    def adapt(
        self, support_x: Any, support_y: Any, class_names: Sequence[str] | None = None
    ) -> keras.Model:
        """Learns one task, for good: returns an ordinary Keras model for it.

        Args:
            support_x: `[S, *x]`, the labelled examples.
            support_y: `[S]` integer labels from 0 to n_way - 1, or `[S, *y]` floats.
            class_names: Optional names of the classes 0, 1, …, for `model.class_names`. (The file
                of a plain Keras model does not keep them; that of an `AdaptedModel` does.)

        Returns:
            A model from `[Q, *x]` to `[Q, n_way]` logits or `[Q, *y]`, independent of this learner.
            Its `output_kind` is that of the learner.

        Raises:
            ValueError: If the support set is empty, its parts differ in length, a value is NaN or
                infinite, or a label is out of range.
        """
        support_x, support_y = np.asarray(support_x), np.asarray(support_y)
        check_support(support_x, support_y)
        self._see(support_x.shape[1:])
        episode = {"support_x": support_x[None], "support_y": support_y[None]}
        if not self.built:
            self({**episode, "query_x": support_x[None]})
        if self._adapt_function is None:
            self._adapt_function = tf.function(
                self.adapt_task, reduce_retracing=True, autograph=False
            )
        state = self._adapt_function(tf.constant(support_x), tf.constant(support_y))
        adapted = self.adapted_model(state)
        adapted.class_names = None if class_names is None else list(class_names)
        adapted.output_kind = self.output_kind
        if not adapted.built:
            adapted.build((None, *support_x.shape[1:]))
        return adapted

    def save_to_preset(
        self, folder: str | os.PathLike[str], image_format: ImageFormat | None = None
    ) -> None:
        """Writes this learner, without its optimizer, for `tfmeta.from_preset(folder)`.

        Args:
            folder: The folder to write. Other files in it stay.
            image_format: How image files become examples, for `tfmeta adapt` and `export`.
                Defaults to None: the examples are not images.

        Raises:
            ValueError: If the folder holds a preset already, or the learner is not built.

        Example:

        >>> import tempfile
        >>> import tfmeta
        >>> learner = tfmeta.MAML(tfmeta.backbones.mlp(), 0.01, inner_loss="mse")
        >>> folder = tempfile.mkdtemp()
        >>> learner.save_to_preset(folder)
        >>> tfmeta.from_preset(folder).inner_learning_rate
        0.01
        """
        preset_files.save(self, folder, image_format)

    @classmethod
    def from_preset(cls, preset: str | os.PathLike[str], refresh: bool = False) -> Self:
        """Loads a meta-trained learner of this class. See `tfmeta.from_preset`.

        Args:
            preset: A name, a folder or an address.
            refresh: Whether to download again what the cache has. Defaults to False.

        Returns:
            The learner, not compiled.

        Raises:
            ValueError: As `tfmeta.from_preset` does, and if the learner is of another class.

        Example:

        >>> import tfmeta
        >>> tfmeta.MAML.from_preset("maml_sinusoid").inner_steps
        5
        """
        folder = zoo.find(preset, refresh)
        learner = preset_files.load(folder)
        if not isinstance(learner, cls):
            raise ValueError(
                f"{folder / preset_files.LEARNER} must hold a learner of the class {cls.__name__}; "
                f"it has a {type(learner).__name__}."
            )
        return learner

    def with_batch_norm(self, batch_norm: BatchNorm) -> MetaLearner:
        """Another learner with a copy of the same weights and another mode of batch norm.

        A learner that was trained in the `"transductive"` mode, as MAML was published, is not what
        a server wants, for its answers depend on the other queries. In the mode `"support"` the
        same weights serve, at a cost in accuracy; how much, the cards of the presets say.

        Args:
            batch_norm: The mode; see `tfmeta.MAML`.

        Returns:
            The learner, not compiled.

        Raises:
            ValueError: If there is no such mode, or this learner knows none.

        Example:

        >>> import tfmeta
        >>> tfmeta.from_preset("maml_glyphs_5w1s").with_batch_norm("support").batch_norm
        'support'
        """
        config = self.get_config()
        if "batch_norm" not in config:
            raise ValueError(f"A {type(self).__name__} knows no modes of batch norm.")
        other = type(self).from_config({**config, "batch_norm": batch_norm})
        other.set_weights(self.get_weights())
        return other

    def adapted_model(self, state: Any) -> keras.Model:
        """The Keras model of a task whose `adapt_task` returned `state`."""
        return AdaptedModel.from_state(self, state)

    def variables_of_predict(self) -> list[keras.Variable]:
        """The variables that `predict_task` reads; all, if a learner does not know better.

        The model of a task keeps their values, so that meta-training on does not change it.
        """
        return self.variables

    def for_n_way(self, n_way: tf.Tensor | None) -> AbstractContextManager[None]:
        """While it is open, all tasks have n_way classes, where the labels would tell how many."""
        return nullcontext()

    def predict_with(
        self, layout: Layout, flat: Sequence[tf.Tensor], query_x: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """`predict_task`, compiled, with other values of the learner's variables.

        Args:
            layout: That of the task's `"state"` and of the values of `variables_of_predict()`,
                the `"variables"`.
            flat: The values, packed.
            query_x: `[Q, *x]`.
            training: As in `predict_task`, but nothing is assigned to variables.

        Returns:
            `[Q, n_way]` logits, or `[Q, *y]`.
        """
        if layout.key not in self._predict_functions:

            def predict(flat: list[tf.Tensor], query_x: tf.Tensor, training: bool) -> tf.Tensor:
                values = layout.unpack(flat)
                variables = zip(self.variables_of_predict(), values["variables"], strict=True)
                with keras.StatelessScope(state_mapping=variables):
                    return self.predict_task(values["state"], query_x, training=training)

            self._predict_functions[layout.key] = tf.function(
                predict, reduce_retracing=True, autograph=False
            )
        return self._predict_functions[layout.key](list(flat), query_x, training)

    def adapt_task_by_step(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        inner_steps: int,
    ) -> list[Any]:
        """The states of a task after 0, 1, …, `inner_steps` inner steps, where there are such.

        Raises:
            ValueError: If this learner adapts in one go, and has no inner steps.
        """
        raise ValueError(
            f"{type(self).__name__} has no inner steps: evaluate it without inner_steps=."
        )

    def default_loss(self) -> keras.losses.Loss:
        """The loss by which the method was published, for classification."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MetaLearner:
        """A learner of what `get_config` returned, networks and other Keras objects in it too."""
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value, custom_objects)
                if isinstance(value, Mapping) and "class_name" in value
                else value
                for name, value in config.items()
            }
        )

    # === Inside ===

    def _task_variables(self, training: bool) -> list[keras.Variable]:
        """What a task in training may change: seeds and moving averages."""
        return self.non_trainable_variables if training else []

    def _run_task(
        self,
        episode: dict[str, tf.Tensor],
        index: tf.Tensor,
        training: bool,
        run: Callable[[dict[str, tf.Tensor], bool], Any] | None = None,
    ) -> tuple[Any, list[tf.Tensor]]:
        """Predictions of one task, and what its layers would have assigned to variables.

        With another `run`, what that returns for the episode, in place of the predictions.
        """
        variables = self._task_variables(training)
        offsets = [
            tf.stack([index * SEED_STRIDE, 0]) if v.name == "seed_generator_state" else None
            for v in variables
        ]
        mapping = [
            (v, v.value if o is None else v.value + tf.cast(o, v.dtype))
            for v, o in zip(variables, offsets, strict=True)
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            outputs = (run or self._predict_episode)(episode, training)
        values = [tf.convert_to_tensor(scope.get_current_value(v)) for v in variables]
        updates = [
            value if o is None else value - tf.cast(o, value.dtype)
            for value, o in zip(values, offsets, strict=True)
        ]
        return outputs, updates

    def _predict_episode(self, episode: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        state = self.adapt_task(
            episode["support_x"],
            episode["support_y"],
            episode.get("support_mask"),
            training=training,
        )
        predictions = self.predict_task(
            state, episode["query_x"], episode.get("query_mask"), training=training
        )
        return tf.cast(predictions, self.variable_dtype)

    def task_gradients(
        self,
        inputs: dict[str, tf.Tensor],
        y: tf.Tensor,
        sample_weight: tf.Tensor | None,
        weight: tf.Tensor,
        index: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor, list[tf.Tensor]]:
        """The outer gradient of one task; a learner whose outer update is another overrides it.

        Args:
            inputs: The inputs of a meta-batch of this one task.
            y: `[1, Q]` or `[1, Q, *y]`, its targets.
            sample_weight: `[1, Q]`, or None.
            weight: Scalar, the task's share in the loss of the meta-batch.
            index: Scalar int32, the task's index in its meta-batch.

        Returns:
            The task's loss times its weight; its gradients (scaled by the optimizer, if that
            scales losses) in the order of `trainable_variables`; its predictions `[Q, …]`; and
            what its layers would have assigned, in the order of `_task_variables`.
        """
        with tf.GradientTape() as tape:
            predictions, updates = self._run_task(only_task(inputs), index, training=True)
            loss, scaled_loss = self._task_loss(inputs, y, sample_weight, weight, predictions)
        gradients = tape.gradient(
            scaled_loss, self.trainable_variables, unconnected_gradients="zero"
        )
        return loss, gradients, predictions, updates

    def _task_loss(
        self,
        inputs: dict[str, tf.Tensor],
        y: tf.Tensor,
        sample_weight: tf.Tensor | None,
        weight: tf.Tensor,
        predictions: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The compiled loss of one task's predictions `[Q, …]`, times its weight; and scaled."""
        loss = self.compute_loss(
            x=inputs, y=y, y_pred=predictions[None], sample_weight=sample_weight, training=True
        )
        loss *= tf.cast(weight, loss.dtype)
        return loss, self.optimizer.scale_loss(loss)

    def _commit(self, updates: list[tf.Tensor], training: bool) -> None:
        for variable, value in zip(self._task_variables(training), updates, strict=True):
            variable.assign(value)

    def _task_weights(
        self, n_tasks: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tf.Tensor | None:
        """`[T]` factors that turn the losses of single tasks into the compiled loss of them all.

        None where the compiled loss is no such sum.
        """
        if not (isinstance(self.loss, str | keras.losses.Loss) or callable(self.loss)):
            return None
        # Keras averages a loss given by its name or as a function.
        reduction = getattr(self.loss, "reduction", "mean")
        floatx = keras.backend.floatx()
        if reduction in ("sum_over_batch_size", "mean") or (
            reduction == "mean_with_sample_weight" and sample_weight is None
        ):
            return tf.fill([n_tasks], 1 / tf.cast(n_tasks, floatx))
        if reduction == "mean_with_sample_weight":
            weight = tf.cast(tf.reshape(sample_weight, [n_tasks, -1]), floatx)
            return tf.math.divide_no_nan(tf.reduce_sum(weight, axis=1), tf.reduce_sum(weight))
        # A sum would count the regularisers once per task.
        if reduction == "sum" and not self.losses:
            return tf.ones([n_tasks], floatx)
        return None


def only_task(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The episode of a meta-batch of one task."""
    return {name: tensor[0] for name, tensor in inputs.items()}


def _checked_inputs(inputs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """The inputs as tensors, after the checks that static shapes allow."""
    expected = (
        "a dictionary with support_x [T, S, *x], support_y [T, S] and query_x [T, Q, *x], and "
        "optionally support_mask [T, S] and query_mask [T, Q]"
    )
    if not isinstance(inputs, Mapping):
        raise ValueError(f"A meta-learner takes {expected}; got {type(inputs).__name__}.")
    missing = [name for name in REQUIRED_INPUTS if name not in inputs]
    unknown = [name for name in inputs if name not in REQUIRED_INPUTS + OPTIONAL_INPUTS]
    if missing or unknown:
        raise ValueError(
            f"A meta-learner takes {expected}; got {sorted(inputs)} "
            f"(missing: {missing}, unknown: {unknown})."
        )
    tensors = {
        name: tf.convert_to_tensor(value) for name, value in inputs.items() if value is not None
    }
    ranks = {name: tensor.shape.rank for name, tensor in tensors.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if None in ranks.values():
        return tensors
    if ranks["support_x"] < 3 or ranks["support_x"] != ranks["query_x"] or ranks["support_y"] < 2:
        raise ValueError(
            f"A meta-learner takes {expected}; got {shapes}. A single task needs a leading "
            "dimension of 1: x[None]."
        )
    for first, second, axes in (
        ("support_x", "query_x", slice(2, None)),
        ("support_x", "support_y", slice(0, 2)),
        ("support_x", "support_mask", slice(0, 2)),
        ("query_x", "query_mask", slice(0, 2)),
    ):
        if second in tensors and not tensors[first].shape[axes].is_compatible_with(
            tensors[second].shape[axes]
        ):
            raise ValueError(f"{first} and {second} do not fit together: got the shapes {shapes}.")
    return tensors


def check_labels(support_y: np.ndarray, n_way: int | None = None) -> None:
    """Raises a ValueError for what are no labels of classes.

    Args:
        support_y: What should be integers `[S]` from 0 to n_way - 1.
        n_way: Number of classes; None if the labels say it, and each class must have an example.
    """
    if support_y.ndim != 1 or not np.issubdtype(support_y.dtype, np.integer):
        raise ValueError(
            f"support_y must be integer labels [S]; got {support_y.dtype} {support_y.shape}."
        )
    if support_y.min() < 0 or (n_way is not None and support_y.max() >= n_way):
        top = "" if n_way is None else f" to {n_way - 1}, for the network has {n_way} outputs"
        raise ValueError(f"Labels must be from 0{top}; got {support_y.min()} to {support_y.max()}.")
    missing = sorted(set(range(support_y.max() + 1)) - set(support_y.tolist()))
    if n_way is None and missing:
        raise ValueError(
            f"Every class from 0 to {support_y.max()} needs a support example; none has the "
            f"label{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing[:5]))}."
        )


def check_support(support_x: np.ndarray, support_y: np.ndarray) -> None:
    """Raises a ValueError for a support set that no learner can learn from."""
    if support_x.ndim < 2 or len(support_x) == 0:
        raise ValueError(
            f"support_x must be [S, *x] with at least one example; got shape {support_x.shape}."
        )
    if support_y.ndim < 1 or len(support_x) != len(support_y):
        raise ValueError(
            "support_x and support_y must have one row per example; got the shapes "
            f"{support_x.shape} and {support_y.shape}."
        )
    for name, array in (("support_x", support_x), ("support_y", support_y)):
        if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
            raise ValueError(f"{name} must hold numbers; got dtype {array.dtype}.")
        bad = np.size(array) - int(np.isfinite(array).sum())
        if bad:
            raise ValueError(
                f"{name} must be finite; {bad} of its {array.size} values are NaN or infinite."
            )
