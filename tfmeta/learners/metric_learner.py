"""What the learners share that compare a query's features with those of the support set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.adapted_model import copy_with_statistics
from tfmeta.learners.functional import (
    BatchNorm,
    call_on_queries,
    call_on_support,
    check_batch_norm,
    check_model,
    normalises_together,
)
from tfmeta.learners.meta_learner import MetaLearner, check_labels

# What `for_n_way` says, by the learner's id. One of each thread: a tensor of the graph that one
# thread traces is of no use in another's. Not in the learner, for a ContextVar is never freed.
_N_WAY: ContextVar[Mapping[int, tf.Tensor | None]] = ContextVar(
    "n_way", default=MappingProxyType({})
)


class MetricLearner(MetaLearner):
    """Base class: an encoder, the same for all tasks, and a comparison of its features.

    n_way is not fixed: it is the largest label of the support set plus one, so that a learner may
    be trained with more ways than it is tested with. The tasks of one meta-batch must have the same
    n_way (as those of `episodes(...)` have).

    Args:
        encoder: Any Keras 3 model from `[N, *x]` to features.
        batch_norm: How `BatchNormalization` layers normalise; see `tfmeta.MAML`.
        **kwargs: As in `keras.Model`: `name`, `dtype`. The dtype defaults to the encoder's.
    """

    def __init__(
        self, encoder: keras.Model, batch_norm: BatchNorm = "transductive", **kwargs: Any
    ) -> None:
        check_model("encoder", encoder)
        check_batch_norm(batch_norm)
        kwargs.setdefault("dtype", encoder.dtype_policy)
        super().__init__(**kwargs)
        self.encoder = encoder
        self.batch_norm = batch_norm

    def build_if_possible(self) -> None:
        """To call at the end of the constructor: builds what needs the encoder's shapes."""
        if self.encoder.built and hasattr(self.encoder, "output_shape"):
            self.build(None)

    def build(self, input_shape: Any) -> None:
        """Builds what is not built; `input_shape` is that of the inputs, or None if nothing is."""
        if input_shape is not None:
            self._see(input_shape["support_x"][2:])
        if self.encoder.built and hasattr(self.encoder, "output_shape"):
            features = self.encoder.output_shape
        else:
            # A subclassed encoder builds its layers, and tells its shapes, when it is called.
            features = self.encoder(keras.Input(tuple(input_shape["support_x"][2:]))).shape
        self.build_comparison(tuple(features[1:]))
        self.built = True

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        """Called once, when the shape of an example's features is known."""

    # === Features ===

    def support_features(
        self, support_x: tf.Tensor, support_mask: tf.Tensor | None, training: bool
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Features `[S, *f]` of the support set, and the statistics for `query_features`."""
        features, statistics = call_on_support(
            self.encoder,
            support_x,
            batch_norm=self.batch_norm,
            mask=support_mask,
            training=training,
        )
        return tf.cast(features, self.variable_dtype), statistics

    def query_features(
        self,
        statistics: list[tf.Tensor],
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None,
        training: bool,
    ) -> tf.Tensor:
        """Features `[Q, *f]` of the queries."""
        features = call_on_queries(
            self.encoder,
            statistics,
            query_x,
            batch_norm=self.batch_norm,
            mask=query_mask,
            training=training,
        )
        return tf.cast(features, self.variable_dtype)

    def members(self, support_y: tf.Tensor, support_mask: tf.Tensor | None) -> tf.Tensor:
        """`[S, n_way]`: 1 where an example belongs to a class, 0 elsewhere and for padding.

        Raises:
            ValueError: If the labels are no labels, but regression targets.
        """
        if support_y.shape.rank not in (None, 1):
            raise ValueError(
                f"{type(self).__name__} learns classes: support_y must be integer labels [T, S]; "
                f"got a task's of shape {tuple(support_y.shape)}."
            )
        labels = tf.cast(support_y, tf.int32)
        if support_mask is not None:
            labels = tf.where(tf.cast(support_mask, tf.bool), labels, -1)
        n_way = _N_WAY.get().get(id(self))
        if n_way is None:
            n_way = tf.reduce_max(labels) + 1
        return tf.one_hot(labels, n_way, dtype=self.variable_dtype)

    @contextlib.contextmanager
    def for_n_way(self, n_way: tf.Tensor | None) -> Iterator[None]:
        """While it is open, all tasks have n_way classes, where the labels would tell how many.

        All tasks of the thread that opened it: learners are called and exported in several at once.
        """
        token = _N_WAY.set({**_N_WAY.get(), id(self): n_way})
        try:
            yield
        finally:
            _N_WAY.reset(token)

    # === One task ===

    def adapt(
        self, support_x: Any, support_y: Any, class_names: Sequence[str] | None = None
    ) -> keras.Model:
        """Learns one task, for good. See `MetaLearner.adapt`.

        Raises:
            ValueError: Also if a class between 0 and the largest label has no example.
        """
        if np.size(support_y) and np.ndim(support_y) == 1:
            check_labels(np.asarray(support_y))
        return super().adapt(support_x, support_y, class_names)

    def task_encoder(self, statistics: list[tf.Tensor]) -> keras.Model | None:
        """A copy of the encoder that normalises by a task's statistics, as a plain Keras model.

        None where no plain Keras model does what this learner does, because queries are normalised
        by their own statistics, or where a subclassed encoder does not tell its shapes.
        """
        together = normalises_together(self.batch_norm, self.encoder)
        if together or not hasattr(self.encoder, "input_shape"):
            return None
        return copy_with_statistics(self.encoder, statistics)

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "batch_norm": self.batch_norm,
        }


def flat(features: tf.Tensor) -> tf.Tensor:
    """`[N, d]`, from features `[N, *f]`."""
    return tf.reshape(features, [tf.shape(features)[0], -1])
