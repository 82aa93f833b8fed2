"""Prototypical Networks: a class is the mean of its examples' features."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from tfmeta.learners.comparisons import (
    matrix_product,
    negative_squared_distances,
    shifted_by_constant,
    without_missing,
)
from tfmeta.learners.metric_learner import MetricLearner, flat
from tfmeta.networks import BatchNorm, constant_products


@keras.saving.register_keras_serializable("tfmeta")
class PrototypicalNetwork(MetricLearner):
    """Classifies a query by its distance to each class's mean in feature space.

    Deviation from the paper's code: there the support set and the queries of an episode are
    normalised together, in one batch; here, in the transductive mode, each by its own statistics.

    Args:
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features of any shape, such as
            `tfmeta.backbones.conv4(None, …)`.
        distance: str. `"euclidean"`: the logits are the negative *squared* Euclidean distances, as
            published. `"cosine"`: they are the cosine similarities. Defaults to `"euclidean"`.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

    Reference:
        Snell, Swersky, Zemel (2017), Prototypical Networks for Few-shot Learning,
        https://arxiv.org/abs/1703.05175. Equations (1) and (2):
        c_k = mean of f(x_i) over the examples of class k, p(y = k | x) = softmax_k(−‖f(x) − c_k‖²).

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = PrototypicalNetwork(tfmeta.backbones.conv4(None, (28, 28, 1)))
    >>> learner.compile("adam", learner.default_loss(), metrics=["accuracy"])
    >>> x, y = np.random.rand(60, 28, 28, 1).astype("float32"), np.arange(60) % 3
    >>> episodes = tfmeta.data.load((x, y)).episodes(n_way=3, n_shot=5, n_query=5)
    >>> history = learner.fit(episodes, steps_per_epoch=1, shuffle=False, verbose=0)
    >>> learner.adapt(x[:10], y[:10]).predict(x[:7], verbose=0).shape
    (7, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        if distance not in ("euclidean", "cosine"):
            raise ValueError(f'distance must be "euclidean" or "cosine"; got {distance!r}.')
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
        self.distance = distance
        self.build_if_possible()

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> dict[str, Any]:
        """Takes the mean feature of each class. See `MetaLearner.adapt_task`."""
        members = self.members(support_y, support_mask, n_way)
        features, statistics = self.support_features(support_x, support_mask, training)
        sums = tf.matmul(members, flat(features), transpose_a=True)
        counts = tf.reduce_sum(members, axis=0)[:, None]
        return {
            "prototypes": tf.math.divide_no_nan(sums, counts),
            "is_missing": tf.cast(counts[:, 0] == 0, self.variable_dtype),
            "statistics": statistics,
        }

    def predict_task(
        self,
        state: dict[str, Any],
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Returns logits by distance. See `MetaLearner.predict_task`."""
        features = self.query_features(state["statistics"], query_x, query_mask, training)
        precise = self.precise_dtype
        features, prototypes = (
            tf.cast(flat(features), precise),
            tf.cast(state["prototypes"], precise),
        )
        logits = self._logits(features, prototypes, matrix_product, tf.subtract)
        return without_missing(self.as_variables(logits), state["is_missing"])

    def _logits(self, features: Any, prototypes: tf.Tensor, product: Any, shifted: Any) -> Any:
        """Compares features `[Q, d]` with prototypes `[n_way, d]`."""
        if self.distance == "cosine":
            prototypes = keras.ops.normalize(prototypes, axis=-1)
            return product(keras.ops.normalize(features, axis=-1), tf.transpose(prototypes), None)
        return negative_squared_distances(features, prototypes, product, shifted)

    def plain_model(self, state: dict[str, Any]) -> keras.Model | None:
        """Makes a copy of the encoder, followed by the distances to the prototypes."""
        encoder = self.task_encoder(state["statistics"])
        if encoder is None:
            return None
        x = keras.Input(encoder.input_shape[1:], dtype=self.variable_dtype)
        features = keras.layers.Flatten(dtype=self.precise_dtype)(encoder(x))
        logits = self._logits(
            features,
            tf.cast(state["prototypes"], self.precise_dtype),
            constant_products(),
            shifted_by_constant,
        )
        return keras.Model(x, self.as_variables(logits))
