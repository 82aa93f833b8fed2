"""The base class of all learners, as its user has it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from tfmeta import keras_internals, preset_files, zoo
from tfmeta.checks import check_integer, check_one_of
from tfmeta.data.images import ImageFormat
from tfmeta.learners.adapted_model import AdaptedModel
from tfmeta.learners.divergence import check_adapted, mean_squares
from tfmeta.learners.layout import Layout
from tfmeta.learners.meta_training import MetaTraining
from tfmeta.learners.task_inputs import (
    check_no_pixels,
    check_support,
    checked_class_names,
    one_array,
)
from tfmeta.networks import (
    BatchNorm,
    NotCopyableError,
    check_batch_norm,
    clone,
    warn_of_unregistered,
)
from tfmeta.task_mapping import TASK_MAPPINGS, TaskMapping

# Compiled functions of adapted models that a learner keeps, one for each size of a task's state.
MOST_PREDICT_FUNCTIONS = 16


class MetaLearner(MetaTraining):
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

    Args:
        task_mapping: str. How the tasks of a meta-batch are computed: `"loop"`, one after another,
            as CPUs are fastest; `"vectorized"`, all at once, as GPUs need it; or `"auto"`: all at
            once in `fit`, `evaluate` and `predict` if TensorFlow sees a GPU, and then compiled by
            XLA, unless `compile` is told otherwise. Results agree up to rounding. Defaults to
            `"auto"`.
        tasks_at_once: int ≥ 1 or None. How many tasks are vectorised at once: memory grows with
            it. Gradients of further tasks are added. Defaults to None, the whole meta-batch.
        **kwargs: As in `keras.Model`: `name`, `dtype`.

    Raises:
        ValueError: If there is no such mapping, or `tasks_at_once` is no integer ≥ 1.

    Example:

    >>> class NearestMean(MetaLearner):
    ...     def adapt_task(
    ...         self, support_x, support_y, support_mask=None, training=False, n_way=None
    ...     ):
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

    def __init__(
        self,
        *,
        task_mapping: TaskMapping = "auto",
        tasks_at_once: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_one_of("task_mapping", task_mapping, TASK_MAPPINGS)
        if tasks_at_once is not None:
            check_integer("tasks_at_once", tasks_at_once, 1)
        # Targets among the inputs must keep their precision; the inner networks cast by themselves.
        super().__init__(autocast=False, **kwargs)
        # The map over tasks is compiled by itself: checks of labels have no form in XLA.
        self.supports_jit = False
        self.task_mapping = task_mapping
        self.tasks_at_once = tasks_at_once
        self._adapt_function: Any = None
        self._predict_functions: OrderedDict[str, Any] = OrderedDict()
        self._seen_shape: tuple[int, ...] | None = None

    @property
    def compute_dtype(self) -> str:
        """The variables' dtype.

        Under a mixed policy the inner networks cast their own inputs. If the learner reported half
        precision here, Keras would hand out all variables in it, and weights would adapt in it.
        """
        return str(self.variable_dtype)

    @property
    def example_shape(self) -> tuple[int, ...] | None:
        """The shape of one example, if it is known.

        The network or encoder may tell it; otherwise it is the shape that the learner was last
        built for, called with or adapted to.
        """
        shape = getattr(self.input_network(), "input_shape", None)
        if isinstance(shape, list):  # CAVIA's network takes a context, too.
            shape = shape[0]
        if isinstance(shape, tuple) and None not in shape[1:]:
            return shape[1:]
        return self._seen_shape

    def _remember_example_shape(self, shape: Any) -> None:
        """Remembers the shape of an example, if it is known in full."""
        shape = tf.TensorShape(shape)
        if shape.is_fully_defined():
            self._seen_shape = tuple(shape)

    # === Learning a task for good ===

    def adapt(
        self, support_x: Any, support_y: Any, class_names: Sequence[str] | None = None
    ) -> keras.Model:
        """Adapts to one task and returns a standalone Keras model.

        With `batch_norm="transductive"` the returned model normalises each batch that it predicts
        by the batch's own statistics: call `predict` with a `batch_size` that holds all queries.

        Args:
            support_x: array `[S, *x]`. The labelled examples. Pixels are floats from 0 to 1.
            support_y: array `[S]` of integer labels from 0 to n_way - 1, or `[S, *y]` of floats.
            class_names: list of str or None. Names of the classes 0, 1, …, for
                `model.class_names`. The file of a plain Keras model does not keep them; that of an
                `AdaptedModel` does, and so do pickles of both. Defaults to None.

        Returns:
            A model from `[Q, *x]` to `[Q, n_way]` logits or `[Q, *y]`, independent of this learner.
            Its `output_kind` is that of the learner.

        Raises:
            ValueError: If the support set is empty, its parts differ in length, its examples are
                uint8 or uint16 although the network takes floats, a value is NaN or infinite, a
                label is out of range or has no example, targets have another shape than the
                predictions, or adapting gives values that are not finite.
        """
        support_x = one_array("support_x", support_x)
        support_y = one_array("support_y", support_y)
        if support_y.size:
            self.check_task(support_x, support_y)
        check_support(support_x, support_y)
        check_no_pixels("support_x", support_x.dtype, self.input_network())
        kind = self.output_kind_of(support_y)
        n_known = 0 if kind == "values" or support_y.ndim != 1 else int(support_y.max()) + 1
        class_names = checked_class_names(class_names, kind, n_known, self.n_classes)
        self._remember_example_shape(support_x.shape[1:])
        self._build_for_now(support_x, support_y)
        x, y = tf.constant(support_x), tf.constant(self.as_targets(support_y))
        state, sizes = self._adapt_function(x, y)
        check_adapted(self, x, y, state, sizes.numpy())
        adapted = self.adapted_model(state)
        adapted.class_names = class_names
        adapted.output_kind = kind
        keras_internals.keep_in_pickles(adapted, "class_names", "output_kind")
        if not adapted.built:
            adapted.build((None, *support_x.shape[1:]))
        return adapted

    def _build_for_now(self, support_x: np.ndarray, support_y: np.ndarray) -> None:
        """Builds the learner, and its function that adapts: anew if layers changed since."""
        if not self.built:
            episode = {"support_x": support_x, "support_y": support_y, "query_x": support_x}
            self({name: array[None] for name, array in episode.items()})
        if self._has_changed("adapt") or self._adapt_function is None:

            def adapt(support_x: tf.Tensor, support_y: tf.Tensor) -> tuple[Any, tf.Tensor]:
                state = self.adapt_task(support_x, support_y)
                return state, mean_squares(state)

            self._adapt_function = tf.function(adapt, reduce_retracing=True, autograph=False)

    def adapted_model(self, state: Any) -> keras.Model:
        """Makes the Keras model of a task whose `adapt_task` returned `state`.

        Returns:
            A plain Keras model if one does the same, else an `AdaptedModel`.
        """
        try:
            plain = self.plain_model(state)
        except NotCopyableError:
            plain = None
        return AdaptedModel.from_state(self, state) if plain is None else plain

    def predict_with(
        self, layout: Layout, flat: Sequence[tf.Tensor], query_x: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """Calls `predict_task`, compiled, with other values of the learner's variables.

        Args:
            layout: Layout. How the task's `"state"` and the values of `variables_of_predict()`,
                the `"variables"`, are packed.
            flat: list of tf.Tensor. The values, packed.
            query_x: tf.Tensor `[Q, *x]`.
            training: bool. As in `predict_task`, but nothing is assigned to variables.

        Returns:
            `[Q, n_way]` logits, or `[Q, *y]`.
        """
        functions = self._predict_functions
        function = functions.get(layout.key)
        if function is None:

            def predict(flat: list[tf.Tensor], query_x: tf.Tensor, training: bool) -> tf.Tensor:
                values = layout.unpack(flat)
                variables = zip(self.variables_of_predict(), values["variables"], strict=True)
                with keras.StatelessScope(state_mapping=variables):
                    return self.predict_task(values["state"], query_x, training=training)

            function = tf.function(predict, reduce_retracing=True, autograph=False)
            functions[layout.key] = function
            if len(functions) > MOST_PREDICT_FUNCTIONS:
                functions.popitem(last=False)
        else:
            # Another thread may just have dropped it.
            functions[layout.key] = function
            functions.move_to_end(layout.key)
        return function(list(flat), query_x, training)

    # === Saving, and other modes ===

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        chosen = {"task_mapping": self.task_mapping, "tasks_at_once": self.tasks_at_once}
        return {**config, **{k: v for k, v in chosen.items() if v != getattr(MetaLearner, k)}}

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the learner; see `keras.Model.save`. Warns of what its file needs to load."""
        warn_of_unregistered(self)
        super().save(*args, **kwargs)

    def save_to_preset(
        self, folder: str | os.PathLike[str], image_format: ImageFormat | None = None
    ) -> None:
        """Writes this learner, without its optimizer, for `tfmeta.from_preset(folder)`.

        Args:
            folder: path. The folder to write. What else is in it stays.
            image_format: ImageFormat or None. How image files become examples, for `tfmeta adapt`
                and `export`. Defaults to None: the examples are not images.

        Raises:
            ValueError: If the folder holds a preset already, or the learner is not built.

        Example:

        >>> import tempfile
        >>> import tfmeta
        >>> learner = tfmeta.MAML(tfmeta.backbones.mlp(), inner_loss="mse")
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
            preset: path. A name, a folder or an address.
            refresh: bool. Whether to download again what the cache has. Defaults to False.

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
        name = os.fspath(preset) if "://" in os.fspath(preset) else str(folder)
        learner = preset_files.load(folder, name)
        if not isinstance(learner, cls):
            raise ValueError(
                f"{name}/{preset_files.LEARNER} must hold a learner of the class {cls.__name__}; "
                f"it has a {type(learner).__name__}."
            )
        return learner

    def with_batch_norm(self, batch_norm: BatchNorm) -> MetaLearner:
        """Makes another learner with a copy of the weights and another mode of batch norm.

        A learner that was trained in the `"transductive"` mode, as MAML was published, is not what
        a server wants, for its answers depend on the other queries. In the mode `"support"` the
        same weights serve, at a cost in accuracy that the cards of the presets tell.

        Args:
            batch_norm: str. The mode; see `tfmeta.MAML`.

        Returns:
            The learner, not compiled.

        Raises:
            ValueError: If there is no such mode, this learner knows none, or it has no weights yet.

        Example:

        >>> import tfmeta
        >>> tfmeta.from_preset("maml_glyphs_5w1s").with_batch_norm("support").batch_norm
        'support'
        """
        check_batch_norm(batch_norm)
        if not hasattr(self, "batch_norm"):
            raise ValueError(f"A {type(self).__name__} knows no modes of batch norm.")
        if not self.built:
            raise ValueError(
                f"This {type(self).__name__} has no weights yet: train it, adapt it or call it "
                "once before with_batch_norm."
            )
        other = clone(self)
        other.batch_norm = batch_norm
        other._adapt_function, other._predict_functions = None, OrderedDict()
        return other
