"""The contract: two pure functions of one task, and what else a learner may say about itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.learners.output_kinds import OutputKind
from tfmeta.networks import freeze_layers, trainable_layers
from tfmeta.task_mapping import TaskMapping


class Contract(keras_internals.NoSaveSignature, keras.Model):
    """Declares what a learner supplies; `MetaLearner` makes a trainable Keras model of it.

    Attributes:
        takes: str. What the constructor's first argument is: `"network"`, whose outputs are
            predictions, or `"encoder"`, whose outputs are features.
        has_inner_steps: bool. Whether a task is learned in steps, after each of which it can be
            evaluated.
        shares_weights: bool. Whether all tasks are computed with the same values of the variables,
            as is not so if inner steps change copies of them. While all tasks are mapped at once,
            the variables then have one gradient, which is cheaper than one for each task.
            Defaults to True for learners without inner steps, else to False.
        classes_from_support: bool. Whether the support set's labels alone tell a task's classes,
            each of which needs an example.
        takes_unlabelled: bool. Whether meta-training takes unlabelled examples, too, as
            `unlabelled_x` `[T, U, *x]`.
        n_classes: int or None. How many classes the predictions tell apart, if that is fixed.
        task_mapping: str. How tasks are mapped; see `MetaLearner`.
        tasks_at_once: int or None. How many tasks are vectorised at once; see `MetaLearner`.
    """

    takes: Literal["network", "encoder"] = "network"
    has_inner_steps: bool = False
    classes_from_support: bool = False
    takes_unlabelled: bool = False
    n_classes: int | None = None
    task_mapping: TaskMapping = "auto"
    tasks_at_once: int | None = None

    @property
    def shares_weights(self) -> bool:
        return not self.has_inner_steps

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> Any:
        """Learns one task from its support set. Pure: changes no variable unless `training`.

        Args:
            support_x: tf.Tensor `[S, *x]`.
            support_y: tf.Tensor `[S]` integers, or `[S, *y]` floats. `fit` may have turned integers
                into floats: cast them before you use them.
            support_mask: tf.Tensor `[S]` or None. 1 for an example and 0 for padding; None for no
                padding. Defaults to None.
            training: bool. Whether this is meta-training. What Keras layers assign then (seeds,
                moving averages) is kept apart per task and written once per call, averaged over
                tasks. Defaults to False.
            n_way: tf.Tensor, scalar int32, or None. The number of classes, the same for all tasks
                of a meta-batch; None if the task's labels tell it, or there are no classes.
                Defaults to None.

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
            query_x: tf.Tensor `[Q, *x]`.
            query_mask: tf.Tensor `[Q]` or None. 1 for a query and 0 for padding; None for no
                padding. Defaults to None.
            training: bool. As in `adapt_task`. Defaults to False.

        Returns:
            `[Q, n_way]` logits, or `[Q, *y]`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement predict_task.")

    def predict_task_by_step(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None,
        inner_steps: int,
        n_way: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Predicts the queries of one task after each of its inner steps.

        Args:
            support_x: tf.Tensor. As in `adapt_task`; likewise the next two.
            support_y: tf.Tensor.
            support_mask: tf.Tensor or None.
            query_x: tf.Tensor. As in `predict_task`; likewise the next.
            query_mask: tf.Tensor or None.
            inner_steps: int. The number of steps, ≥ 0.
            n_way: tf.Tensor, scalar int32, or None. As in `adapt_task`; given if
                `classes_from_support`. Defaults to None.

        Returns:
            The predictions after 0, 1, …, `inner_steps` steps: `[inner_steps + 1, Q, n_way]` or
            `[inner_steps + 1, Q, *y]`.

        Raises:
            ValueError: If this learner adapts in one go, and has no inner steps.
        """
        raise ValueError(
            f"{type(self).__name__} has no inner steps: evaluate it without inner_steps=."
        )

    # === What others want to know ===

    @property
    def output_kind(self) -> OutputKind:
        """The kind of predictions: logits or scores (from 0 to 1) of classes, or values.

        `"logits"` and `"scores"` have one column per class; `"binary_logits"` and
        `"binary_scores"` one column for two classes, which belongs to class 1.
        """
        return "logits"

    def output_kind_of(self, support_y: np.ndarray | tf.Tensor) -> OutputKind:
        """Returns the kind of predictions for one task.

        Args:
            support_y: array `[S, …]`. Its labels or targets.
        """
        return self.output_kind

    def prediction_shape(self, example_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Returns the shape of one example's prediction; None if each task's labels decide it."""
        return None

    def default_loss(self) -> keras.losses.Loss:
        """Returns the loss with which the method was published, for classification."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def first_not_finite(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tuple[int, str] | None:
        """Finds the first inner step after which a weight of a task is not finite.

        Args:
            support_x: tf.Tensor `[S, *x]`.
            support_y: tf.Tensor `[S, …]`.
            support_mask: tf.Tensor `[S]` or None. As in `adapt_task`. Defaults to None.
            training: bool. Whether the task is one of meta-training. Defaults to False.

        Returns:
            (step, name of the weight); None if there is none, or it is unknown.
        """
        return None

    def check_task(self, support_x: np.ndarray, support_y: np.ndarray) -> None:
        """Raises a ValueError for a support set of finite numbers that this learner cannot learn.

        Args:
            support_x: np.ndarray `[S, *x]`, S ≥ 1.
            support_y: np.ndarray `[S, …]`.
        """

    def as_targets(self, support_y: np.ndarray) -> np.ndarray:
        """Returns checked labels or targets of a task in one form, for which one graph is traced.

        Args:
            support_y: np.ndarray `[S, …]`.
        """
        return support_y

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables that `predict_task` reads; all, if a learner does not say.

        The model of a task keeps their values, so further meta-training does not change it.
        """
        return self.variables

    def plain_model(self, state: Any) -> keras.Model | None:
        """Makes a plain Keras model of a learned task, whose file loads without tfmeta.

        Args:
            state: What `adapt_task` returned.

        Returns:
            The model; None if no plain Keras model does what `predict_task` does.

        Raises:
            NotCopyableError: If a network that would be part of it cannot be copied.
        """
        return None

    @property
    def outer_variables(self) -> list[keras.Variable]:
        """The variables that the compiled optimizer changes: all trainable ones, by default."""
        return self.trainable_variables

    # === Networks ===

    def input_network(self) -> keras.Model | None:
        """Returns the network that examples enter first; None if there is no such network."""
        return None

    # === Config ===

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Makes a learner from what `get_config` returned, Keras objects in it included."""
        arguments = {
            name: keras.saving.deserialize_keras_object(value, custom_objects)
            if isinstance(value, Mapping) and "class_name" in value
            else value
            for name, value in config.items()
        }
        for name, trainable in arguments.pop(_TRAINABLE_LAYERS, {}).items():
            freeze_layers(arguments[name], trainable)
        return cls(**arguments)


def constructor_arguments(
    learner: Contract, base: type[Contract], family: type[Contract] | None = None
) -> dict[str, Any]:
    """Returns the configuration of a learner whose constructor arguments are its attributes.

    The arguments are those of its class and, as long as constructors pass on what they do not name
    (`**kwargs`), of the classes that it derives from. A class with a `get_config` of its own names
    its own arguments there.

    Args:
        learner: Contract. A learner that keeps each argument under its own name.
        base: type. The class at which to stop.
        family: type or None. A class whose `get_config` is the one that calls this. Defaults to
            None.

    Returns:
        Every named argument, Keras objects serialised; and, if layers of a network among them are
        frozen, which ones.

    Raises:
        ValueError: If an argument is no attribute.
    """
    names: list[str] = []
    for cls in type(learner).__mro__:
        if cls is base:
            break
        if "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(cls).parameters.values()
        if "get_config" not in vars(cls) or cls is family:
            names += [p.name for p in parameters if p.kind in _NAMED and p.name not in names]
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    config: dict[str, Any] = {}
    for name in names:
        if not hasattr(learner, name):
            raise ValueError(
                f"{type(learner).__name__} does not keep its argument {name!r} as an attribute of "
                "that name: keep it, or give the class a get_config, or it cannot be saved."
            )
        value = getattr(learner, name)
        is_plain = value is None or isinstance(value, bool | int | float | str | list | tuple)
        config[name] = value if is_plain else keras.saving.serialize_keras_object(value)
    networks = {name: getattr(learner, name) for name in names}
    trainable = {n: trainable_layers(v) for n, v in networks.items() if isinstance(v, keras.Model)}
    partly = {name: flags for name, flags in trainable.items() if not all(flags)}
    return {**config, _TRAINABLE_LAYERS: partly} if partly else config


# The key of what `trainable_layers` returned for each network with frozen layers.
_TRAINABLE_LAYERS = "trainable_layers"
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
