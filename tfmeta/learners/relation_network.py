"""Relation Networks: a learned comparison of a query with each class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.backbones import relation_mlp
from tfmeta.backbones import relation_module as published_relation_module
from tfmeta.checks import check_integer
from tfmeta.learners.metric_learner import MetricLearner
from tfmeta.learners.one_hot_squared_error import OneHotSquaredError
from tfmeta.learners.output_kinds import OutputKind
from tfmeta.networks import (
    BatchNorm,
    Pairs,
    batch_norm_layers,
    call_shared_network,
    check_network,
    constant_products,
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

    For regression, with `n_targets=`, each support example is a class of its own, and the scores
    weigh the targets: ŷ = Σ_i r_i y_i / Σ_i r_i. Negative scores count as 0, and each score gets
    1e-7 added, so that a query that is related to no example gets the mean target. Predictions lie
    between the smallest and the largest target of the support set. The paper has no regression.

    Deviations from the paper's code: convolutions have no bias (see `relation_encoder`), and the
    images are not standardised: behind a convolution without padding, batch norm undoes a positive
    scale and a shift of them (up to its epsilon).

    Args:
        encoder: keras.Model. The embedding module, any Keras 3 model from `[N, *x]` to features,
            such as `tfmeta.backbones.relation_encoder`.
        relation_module: keras.Model or None. Any Keras 3 model from pairs of features, the
            support's before the query's on the last axis, to `[N, 1]` scores. Defaults to None: for
            maps the published one, `tfmeta.backbones.relation_module`; for vectors
            `tfmeta.backbones.relation_mlp`.
        n_targets: int ≥ 1 or None. How many values to predict for each example, in regression.
            Defaults to None: classification.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. In the mode
            `"support"`, the relation module's normalise by the pairs of the support examples with
            the classes; in regression, with each other. Defaults to `"transductive"`.
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
        n_targets: int | None = None,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        if n_targets is not None:
            check_integer("n_targets", n_targets, 1)
        if relation_module is not None:
            check_network("relation_module", relation_module)
            prepare_network(relation_module)
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
        self.relation_module = relation_module
        self.n_targets = n_targets
        self.classes_from_support = n_targets is None
        self.build_if_possible()

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        if self.relation_module is None:
            if len(feature_shape) not in (1, 3):
                raise ValueError(
                    "There is a relation module for vectors and for maps (height, width, "
                    f"channels), but the encoder's features have shape {feature_shape}: give a "
                    "relation_module=."
                )
            self.relation_module = (
                published_relation_module(feature_shape)
                if len(feature_shape) == 3
                else relation_mlp(feature_shape[0])
            )
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
        return "scores" if self.n_targets is None else "values"

    def default_loss(self) -> keras.losses.Loss:
        if self.n_targets is not None:
            return keras.losses.MeanSquaredError()
        return OneHotSquaredError()

    def prediction_shape(self, example_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        return None if self.n_targets is None else (self.n_targets,)

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> dict[str, Any]:
        """Sums each class's features, or keeps each example's in regression.

        See `MetaLearner.adapt_task`.
        """
        state: dict[str, Any]
        if self.n_targets is None:
            members = self.members(support_y, support_mask, n_way)
            features, statistics = self.support_features(support_x, support_mask, training)
            state = {
                "classes": tf.tensordot(members, features, axes=[[0], [0]]),
                "is_there": tf.reduce_max(members, axis=0),
            }
        else:
            targets = self._as_columns(support_y)
            features, statistics = self.support_features(support_x, support_mask, training)
            exists = tf.ones(tf.shape(features)[:1]) if support_mask is None else support_mask
            state = {
                "classes": features,
                "is_there": tf.cast(exists, self.variable_dtype),
                "targets": tf.cast(targets, self.variable_dtype),
            }
        state = {**state, "statistics": statistics, "relation_statistics": []}
        if self.batch_norm == "support" and batch_norm_layers(self.relation_module):
            _, state["relation_statistics"] = call_shared_network(
                self.relation_module,
                Pairs(state["classes"], features),
                part="support",
                batch_norm=self.batch_norm,
                mask=_per_pair(support_mask, state, features),
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
        """Returns scores from 0 to 1, or regression values. See `MetaLearner.predict_task`."""
        features = self.query_features(state["statistics"], query_x, query_mask, training)
        scores, _ = call_shared_network(
            self.relation_module,
            Pairs(state["classes"], features),
            part="queries",
            batch_norm=self.batch_norm,
            statistics=state["relation_statistics"],
            mask=_per_pair(query_mask, state, features),
            training=training,
        )
        scores = tf.reshape(scores, [tf.shape(features)[0], tf.shape(state["classes"])[0]])
        if "targets" in state:
            return self._weighted_targets(scores, state, tf.matmul)
        # A class without examples is never predicted.
        return tf.cast(scores, self.variable_dtype) * state["is_there"]

    def _as_columns(self, support_y: Any) -> Any:
        """Returns targets `[S, n_targets]`, of one target also if they are `[S]`."""
        shape = support_y.shape
        if len(shape) == 1 and self.n_targets == 1:
            return support_y[:, None]
        if len(shape) != 2 or shape[1] not in (None, self.n_targets):
            raise ValueError(
                f"This RelationNetwork predicts {self.n_targets} values for each example: "
                f"support_y must be [S, {self.n_targets}]; got a task's of shape {tuple(shape)}."
            )
        return support_y

    def check_task(self, support_x: np.ndarray, support_y: np.ndarray) -> None:
        if self.n_targets is None:
            super().check_task(support_x, support_y)
        else:
            self._as_columns(support_y)

    def as_targets(self, support_y: np.ndarray) -> np.ndarray:
        return support_y if self.n_targets is None else self._as_columns(support_y)

    def _weighted_targets(
        self, scores: Any, state: dict[str, Any], product: Callable[..., Any]
    ) -> Any:
        """Returns the mean of the targets, weighted by scores: `[Q, n_targets]`.

        Args:
            scores: tensor `[Q, S]`. The relation module's, of tensors or symbolic.
            state: dict. What `adapt_task` returned.
            product: function. The product of a tensor and a matrix of the task.
        """
        # In half precision, a sum of many scores would lose the small ones.
        dtype = self.precise_dtype
        is_there = tf.cast(state["is_there"], dtype)[:, None]
        weights = keras.ops.maximum(keras.ops.cast(scores, dtype), 0) + 1e-7
        values = product(weights, tf.cast(state["targets"], dtype) * is_there)
        return keras.ops.cast(values / product(weights, is_there), self.variable_dtype)

    def plain_model(self, state: dict[str, Any]) -> keras.Model | None:
        """Makes copies of both modules, joined by the features of classes or examples."""
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
        if "targets" in state:
            return keras.Model(x, self._weighted_targets(scores, state, constant_products()))
        return keras.Model(x, keras.ops.cast(scores, self.variable_dtype))


def _per_pair(
    mask: tf.Tensor | None, state: dict[str, Any], features: tf.Tensor
) -> tf.Tensor | None:
    """Returns 1 for each pair of an example and a class that are no padding; None for no padding.

    Args:
        mask: tf.Tensor `[N]` or None. 0 for an example that is padding.
        state: dict. What `adapt_task` returned; in regression, its examples may be padding.
        features: tf.Tensor `[N, *f]`. Those of the examples.
    """
    if "targets" not in state:
        return None if mask is None else tf.repeat(mask, tf.shape(state["classes"])[0])
    is_there = state["is_there"]
    examples = tf.ones(tf.shape(features)[:1], is_there.dtype) if mask is None else mask
    pairs = tf.cast(examples, is_there.dtype)[:, None] * is_there
    return tf.reshape(pairs, [-1])
