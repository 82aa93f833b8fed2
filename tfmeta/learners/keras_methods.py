"""Keras's methods of a learner, with checks of what they are given."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, Literal

import keras
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.data.image_reader import explained
from tfmeta.learners.contract import Contract
from tfmeta.learners.graph_checks import in_one_sentence
from tfmeta.learners.output_kinds import check_compiled_loss
from tfmeta.learners.structure import Structure


class KerasMethods(Contract):
    """Checks what Keras's methods are given; what they do is Keras's.

    Attributes:
        compiles_tasks: bool or "auto". What `compile` was given as `jit_compile`.
        skipped_steps: keras.metrics.Sum or None. Counts the steps of an epoch that were skipped,
            if `compile` was given `skip_nonfinite`.
    """

    compiles_tasks: bool | Literal["auto"] = "auto"
    skipped_steps: keras.metrics.Sum | None = None

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *args: Any,
        skip_nonfinite: bool = False,
        **kwargs: Any,
    ) -> None:
        """Configures meta-training; see `keras.Model.compile`.

        Args:
            optimizer: str or keras.optimizers.Optimizer. The outer optimizer. Defaults to
                `"rmsprop"`, as in Keras.
            loss: str, function or keras.losses.Loss. The loss of the queries. Defaults to None,
                the learner's own: `default_loss()`, or in regression its inner loss.
            *args: As in `keras.Model.compile`; likewise the last.
            skip_nonfinite: bool. Whether a step whose loss or meta-gradient is not finite is
                skipped and counted, as `skipped_steps` of the epoch, instead of ending `fit` with
                an error. In metrics, predictions that are not finite are then zeros. A file does
                not keep it. Defaults to False.
            **kwargs: As in `keras.Model.compile`. With `jit_compile`, XLA compiles the map over
                tasks and the optimizer's step, for each size of meta-batches anew; its default
                `"auto"` does so on GPUs. A file does not keep it.

        Raises:
            ValueError: If the loss takes probabilities, but predictions are logits, or the other
                way round; or if XLA cannot compile this learner.
        """
        loss = self.loss_to_compile() if loss is None else loss
        check_compiled_loss(self.output_kind, loss, type(self).__name__)
        signature = inspect.signature(keras.Model.compile)
        given = signature.bind_partial(self, optimizer, loss, *args, **kwargs).arguments
        del given["self"]
        jit_compile = given.pop("jit_compile", "auto")
        if self.classes_from_support and jit_compile is True:
            raise ValueError(
                f"A {type(self).__name__} counts the classes in each meta-batch, but XLA must know "
                "their number before: leave jit_compile out."
            )
        self.compiles_tasks = jit_compile
        # Not an attribute that Keras would track: files of learners are the same with it.
        self.__dict__["skipped_steps"] = (
            keras.metrics.Sum(name="skipped_steps") if skip_nonfinite else None
        )
        if self.output_kind == "binary_logits":
            # Keras's accuracy of one column takes probabilities.
            for name in ("metrics", "weighted_metrics"):
                if isinstance(given.get(name), list | tuple):
                    given[name] = [_of_logits(metric) for metric in given[name]]
        super().compile(**given, jit_compile=False)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the learner as its file says, without the checks."""
        given = {**keras.saving.deserialize_keras_object(config), "jit_compile": False}
        super().compile(**given)
        if self.built:
            self.optimizer.build(self.outer_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that Keras resets and reports, with the count of skipped steps."""
        return [*super().metrics, *([] if self.skipped_steps is None else [self.skipped_steps])]

    def loss_to_compile(self) -> Any:
        """Returns the loss that `compile` takes if it is given none."""
        return self.default_loss()

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Meta-trains; see `keras.Model.fit`.

        Raises:
            ValueError: If there is a `class_weight` (a label stands for another class in each
                task), data without end come without a number of steps, nothing is trainable, or
                the loss or its gradient is not finite; the weights are then those before the step.
        """
        signature = inspect.signature(keras.Model.fit)
        given = dict(signature.bind_partial(self, *args, **kwargs).arguments)
        del given["self"]
        _refuse_class_weight(given)
        _check_end(given.get("x"), given, "steps_per_epoch")
        validation = given.get("validation_data")
        if isinstance(validation, list | tuple) and validation:
            validation = validation[0]
        _check_end(validation, given, "validation_steps")
        with contextlib.ExitStack() as stack:
            for callback in given.get("callbacks") or ():
                if hasattr(callback, "around_fit"):
                    given = stack.enter_context(callback.around_fit(self, given))
            stack.enter_context(in_one_sentence())
            stack.enter_context(explained())
            return super().fit(**given)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Measures the compiled loss and metrics; see `keras.Model.evaluate`, and `fit`."""
        steps = dict(kwargs)
        # A parameter of Keras's own, by which `fit` hands its validation data over.
        steps.pop("_use_cached_eval_dataset", None)
        given = inspect.signature(keras.Model.evaluate).bind_partial(self, *args, **steps).arguments
        _check_end(given.get("x"), given, "steps")
        with in_one_sentence(), explained():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predicts the queries of tasks; see `keras.Model.predict`, and `fit`."""
        given = inspect.signature(keras.Model.predict).bind_partial(self, *args, **kwargs).arguments
        _check_end(given.get("x"), given, "steps")
        with in_one_sentence(), explained():
            return super().predict(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Takes one step; see `keras.Model.train_on_batch`, and `fit`."""
        signature = inspect.signature(keras.Model.train_on_batch)
        _refuse_class_weight(signature.bind_partial(self, *args, **kwargs).arguments)
        with in_one_sentence():
            return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Measures one meta-batch; see `keras.Model.test_on_batch`."""
        with in_one_sentence():
            return super().test_on_batch(*args, **kwargs)

    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Predicts one meta-batch; see `keras.Model.predict_on_batch`."""
        with in_one_sentence():
            return super().predict_on_batch(*args, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Always raises an error: a learner is exported in another way.

        Raises:
            NotImplementedError: Always; it says how.
        """
        raise NotImplementedError(
            "Export a learner by tfmeta.serving.export(learner, folder), which makes a servable "
            "of it; a task that it learned has Keras's export: learner.adapt(x, y).export(folder)."
        )

    # === Functions that Keras keeps ===

    def make_train_function(self, force: bool = False) -> None:
        """Makes Keras's function, anew if layers were frozen, thawed or replaced since.

        The optimizer is built first, so that the step is traced once.

        Raises:
            ValueError: If a variable was not trainable when the optimizer was built.
        """
        if self.built and self.optimizer is not None:
            if not self.optimizer.built and self.outer_variables:
                self.optimizer.build(self.outer_variables)
            elif self.optimizer.built and not keras_internals.optimizer_knows(
                self.optimizer, self.outer_variables
            ):
                raise ValueError(
                    f"Layers of this {type(self).__name__} were thawed (trainable=True) or "
                    "replaced after compile(), and its optimizer does not know their weights: "
                    "compile again, with a new optimizer."
                )
        super().make_train_function(force or self._has_changed("train"))

    def make_test_function(self, force: bool = False) -> Any:
        """Makes Keras's function, anew if layers were frozen, thawed or replaced since."""
        return super().make_test_function(force or self._has_changed("test"))

    def make_predict_function(self, force: bool = False) -> Any:
        """Makes Keras's function, anew if layers were frozen, thawed or replaced since."""
        return super().make_predict_function(force or self._has_changed("predict"))

    def check_trainable(self) -> None:
        """Raises a ValueError if meta-training could change nothing."""
        if not self.outer_variables:
            raise ValueError(
                f"This {type(self).__name__} has no trainable weights, so there is nothing to "
                "meta-train: its layers have none, or are frozen (trainable=False). Thaw some of "
                "them, or use it as it is."
            )

    def _has_changed(self, function: str) -> bool:
        """Returns whether layers were frozen, thawed or replaced since the last call."""
        if not self.built:
            return False
        structures = self.__dict__.setdefault("_structures", {})
        before, structures[function] = structures.get(function), Structure(self)
        return before is not None and before != structures[function]


def _refuse_class_weight(given: dict[str, Any]) -> None:
    if given.get("class_weight") is not None:
        raise ValueError(
            "A learner takes no class_weight, for a label stands for another class in each task: "
            "weigh queries by sample weights [T, Q] instead, the third part of a data set's items."
        )


def _check_end(data: Any, given: dict[str, Any], steps: str) -> None:
    """Raises a ValueError for data without end and without a number of steps."""
    cardinality: Callable[[], Any] | Any = getattr(data, "cardinality", None)
    if cardinality is None or given.get(steps) or keras.config.max_steps_per_epoch():
        return
    size = cardinality() if callable(cardinality) else cardinality
    if int(size) == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"These episodes have no end: say how many meta-batches to take, {steps}=."
        )


def _of_logits(metric: Any) -> Any:
    if isinstance(metric, str) and metric.lower() in ("acc", "accuracy", "binary_accuracy"):
        return keras.metrics.BinaryAccuracy(threshold=0.0, name=metric)
    return metric
