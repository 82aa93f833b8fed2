"""Relation Networks: a learned comparison of a query with each class."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.backbones import relation_module as published_relation_module
from tfmeta.learners.metric_learner import MetricLearner
from tfmeta.learners.one_hot_squared_error import OneHotSquaredError
from tfmeta.learners.output_kinds import OutputKind
from tfmeta.networks import (
    BatchNorm,
    Pairs,
    batch_norm_layers,
    call_shared_network,
    check_network,
    copy_with_statistics,
    normalises_together,
    prepare_network,
    repeated,
)


@keras.saving.register_keras_serializable("tfmeta")
class RelationNetwork(MetricLearner):
    """Scores how well a query and each class belong together, by a network of two parts.

    Predictions are scores from 0 to 1 instead of logits: compile with `learner.default_loss()`,
    their squared error to one-hot labels.

    Deviations from the paper's code: convolutions have no bias (see `relation_encoder`), and the
    images are not standardised: behind a convolution without padding, batch norm undoes a positive
    scale and a shift of them (up to its epsilon).

    Args:
        encoder: keras.Model. The embedding module, any Keras 3 model from `[N, *x]` to features,
            such as `tfmeta.backbones.relation_encoder`.
        relation_module: keras.Model or None. Any Keras 3 model from pairs of features, the
            support's before the query's on the last axis, to `[N, 1]` scores. Defaults to None, the
            published one, `tfmeta.backbones.relation_module`, for the encoder's maps.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. In the mode
            `"support"`, the relation module's normalise by the pairs of the support examples with
            the classes. Defaults to `"transductive"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

    Reference:
        Sung, Yang, Zhang, Xiang, Torr, Hospedales (2018), Learning to Compare,
        https://arxiv.org/abs/1711.06025. Equations (1) and (2): r_ij = g(C(Σ f(x_i), f(x_j))) over
        the shots x_i of a class; min Σ_ij (r_ij − 1(y_i = y_j))².

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = RelationNetwork(tfmeta.backbones.relation_encoder((28, 28, 1)))
    >>> learner.compile("adam", learner.default_loss(), metrics=["accuracy"])
    >>> x, y = np.random.rand(60, 28, 28, 1).astype("float32"), np.arange(60) % 3
    >>> episodes = tfmeta.data.load((x, y)).episodes(n_way=3, n_shot=1, n_query=5)
    >>> history = learner.fit(episodes, steps_per_epoch=1, shuffle=False, verbose=0)
    >>> learner.adapt(x[:10], y[:10]).predict(x[:7], verbose=0).shape
    (7, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        relation_module: keras.Model | None = None,
        *,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        if relation_module is not None:
            check_network("relation_module", relation_module)
            prepare_network(relation_module)
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
        self.relation_module = relation_module
        self.build_if_possible()

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        if self.relation_module is None:
            if len(feature_shape) != 3:
                raise ValueError(
                    "The published relation module takes maps (height, width, channels), but the "
                    f"encoder's features have shape {feature_shape}: give a relation_module=."
                )
            self.relation_module = published_relation_module(feature_shape)
        pair_shape = (*feature_shape[:-1], 2 * feature_shape[-1])
        try:
            shape = self.relation_module(keras.Input(pair_shape)).shape
        except ValueError as error:
            raise ValueError(
                f"relation_module must take pairs of features {pair_shape}: {error}"
            ) from error
        if tuple(shape) != (None, 1):
            raise ValueError(
                f"relation_module must return one score [N, 1] per pair; got {tuple(shape)}."
            )

    @property
    def output_kind(self) -> OutputKind:
        return "scores"

    def default_loss(self) -> keras.losses.Loss:
        return OneHotSquaredError()

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> dict[str, Any]:
        """Sums each class's features. See `MetaLearner.adapt_task`."""
        members = self.members(support_y, support_mask, n_way)
        features, statistics = self.support_features(support_x, support_mask, training)
        classes = tf.tensordot(members, features, axes=[[0], [0]])
        state = {
            "classes": classes,
            "is_there": tf.reduce_max(members, axis=0),
            "statistics": statistics,
            "relation_statistics": [],
        }
        if self.batch_norm == "support" and batch_norm_layers(self.relation_module):
            _, state["relation_statistics"] = call_shared_network(
                self.relation_module,
                Pairs(classes, features),
                part="support",
                batch_norm=self.batch_norm,
                mask=_per_pair(support_mask, classes),
                training=training,
            )
        return state

    def predict_task(
        self,
        state: dict[str, Any],
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Returns scores from 0 to 1. See `MetaLearner.predict_task`."""
        features = self.query_features(state["statistics"], query_x, query_mask, training)
        scores, _ = call_shared_network(
            self.relation_module,
            Pairs(state["classes"], features),
            part="queries",
            batch_norm=self.batch_norm,
            statistics=state["relation_statistics"],
            mask=_per_pair(query_mask, state["classes"]),
            training=training,
        )
        scores = tf.reshape(scores, [tf.shape(features)[0], tf.shape(state["classes"])[0]])
        # A class without examples is never predicted.
        return tf.cast(scores, self.variable_dtype) * state["is_there"]

    def plain_model(self, state: dict[str, Any]) -> keras.Model | None:
        """Makes copies of both modules, joined by the classes' features."""
        encoder = self.task_encoder(state["statistics"])
        if encoder is None or normalises_together(self.batch_norm, self.relation_module):
            return None
        x = keras.Input(encoder.input_shape[1:], dtype=self.variable_dtype)
        features = encoder(x)
        n_way, *shape = state["classes"].shape
        classes = repeated(features, state["classes"])
        features = keras.ops.cast(features, self.variable_dtype)[:, None]
        queries = keras.ops.repeat(features, n_way, axis=1)
        pairs = keras.ops.concatenate([classes, queries], axis=-1)
        pairs = keras.ops.reshape(pairs, [-1, *shape[:-1], 2 * shape[-1]])
        scores = copy_with_statistics(self.relation_module, state["relation_statistics"])(pairs)
        scores = keras.ops.reshape(scores, [-1, n_way])
        return keras.Model(x, keras.ops.cast(scores, self.variable_dtype))


def _per_pair(mask: tf.Tensor | None, classes: tf.Tensor) -> tf.Tensor | None:
    return None if mask is None else tf.repeat(mask, tf.shape(classes)[0])
