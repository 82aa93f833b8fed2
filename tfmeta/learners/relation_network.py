"""Relation Networks: a learned comparison of a query with each class."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from tfmeta.backbones import relation_module as published_relation_module
from tfmeta.learners.adapted_model import copy_with_statistics, repeated
from tfmeta.learners.functional import (
    BatchNorm,
    Pairs,
    batch_norm_layers,
    call_on_queries,
    call_on_support,
    check_model,
    normalises_together,
)
from tfmeta.learners.metric_learner import MetricLearner


@keras.saving.register_keras_serializable("tfmeta")
class RelationNetwork(MetricLearner):
    """Scores how well a query and each class belong together, by a network of two parts.

    Predictions are scores from 0 to 1 rather than logits: compile with `learner.default_loss()`,
    the squared error of these to one-hot labels.

    Deviations from the paper's code: convolutions have no bias (see `relation_encoder`), and the
    images are not standardised: behind a convolution without padding, batch norm undoes a positive
    scale and a shift of them (up to its epsilon).

    Args:
        encoder: The embedding module, any Keras 3 model from `[N, *x]` to features, such as
            `tfmeta.backbones.relation_encoder`.
        relation_module: Any Keras 3 model from pairs of features, the support's before the
            query's on the last axis, to `[N, 1]` scores. Defaults to the published one,
            `tfmeta.backbones.relation_module`, for the encoder's maps.
        batch_norm: How `BatchNormalization` layers normalise; see `tfmeta.MAML`. The relation
            module's, too: in the `"support"` mode by the pairs of the support examples with the
            classes.
        **kwargs: As in `keras.Model`: `name`, `dtype`. The dtype defaults to the encoder's.

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
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        if relation_module is not None:
            check_model("relation_module", relation_module)
        super().__init__(encoder, batch_norm, **kwargs)
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
    def output_kind(self) -> Literal["logits", "scores", "values"]:
        return "scores"

    def default_loss(self) -> keras.losses.Loss:
        return OneHotSquaredError()

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> dict[str, Any]:
        """The sum of each class's features. See `MetaLearner.adapt_task`."""
        members = self.members(support_y, support_mask)
        features, statistics = self.support_features(support_x, support_mask, training)
        classes = tf.tensordot(members, features, axes=[[0], [0]])
        state = {
            "classes": classes,
            "is_there": tf.reduce_max(members, axis=0),
            "statistics": statistics,
            "relation_statistics": [],
        }
        if self.batch_norm == "support" and batch_norm_layers(self.relation_module):
            _, state["relation_statistics"] = call_on_support(
                self.relation_module,
                Pairs(classes, features),
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
        """Scores from 0 to 1. See `MetaLearner.predict_task`."""
        features = self.query_features(state["statistics"], query_x, query_mask, training)
        scores = call_on_queries(
            self.relation_module,
            state["relation_statistics"],
            Pairs(state["classes"], features),
            batch_norm=self.batch_norm,
            mask=_per_pair(query_mask, state["classes"]),
            training=training,
        )
        scores = tf.reshape(scores, [tf.shape(features)[0], tf.shape(state["classes"])[0]])
        # A class without examples is never predicted.
        return tf.cast(scores, self.variable_dtype) * state["is_there"]

    def adapted_model(self, state: dict[str, Any]) -> keras.Model:
        """A plain Keras model: copies of both modules, and the classes' features."""
        encoder = self.task_encoder(state["statistics"])
        if encoder is None or normalises_together(self.batch_norm, self.relation_module):
            return super().adapted_model(state)
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

    def get_config(self) -> dict[str, Any]:
        module = keras.saving.serialize_keras_object(self.relation_module)
        return {**super().get_config(), "relation_module": module}


@keras.saving.register_keras_serializable("tfmeta")
class OneHotSquaredError(keras.losses.Loss):
    """Mean squared error between scores and one-hot labels.

    Args:
        **kwargs: As in `keras.losses.Loss`: `reduction`, `name`.

    Example:

    >>> round(float(OneHotSquaredError()([[1]], [[[0.0, 0.5, 1.0]]])), 4)
    0.4167
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("name", "one_hot_squared_error")
        super().__init__(**kwargs)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """`[…]`, from labels `[…]` and scores `[…, n_way]`."""
        y_pred = tf.convert_to_tensor(y_pred)
        labels = tf.one_hot(tf.cast(y_true, tf.int32), tf.shape(y_pred)[-1], dtype=y_pred.dtype)
        return tf.reduce_mean(tf.square(y_pred - labels), axis=-1)


def _per_pair(mask: tf.Tensor | None, classes: tf.Tensor) -> tf.Tensor | None:
    return None if mask is None else tf.repeat(mask, tf.shape(classes)[0])
