"""Cosine Prototypical Networks: scaled cosine similarities to the classes' mean features."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.checks import check_positive
from tfmeta.learners.comparisons import Comparison, unit
from tfmeta.learners.feature_head import FeatureHead, Head, class_means
from tfmeta.networks import BatchNorm


@keras.saving.register_keras_serializable("tfmeta")
class CosinePrototypicalNetwork(FeatureHead):
    """Classifies a query by its cosine similarity to each class's mean, times a learned scale.

    It is the meta-learning stage of Meta-Baseline. A cosine alone is at most 1, so that a softmax
    of them is never sure; the learned scale τ, an inverse temperature, removes this bound.

    Deviation from the paper: its first stage, in which the encoder is trained by ordinary
    classification of the base classes, is not part of the learner. Bring such an encoder.

    Args:
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features of any shape.
        initial_scale: float > 0. The scale τ at the start of training. Defaults to 10, as in the
            authors' code.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

    Attributes:
        scale: keras.Variable, scalar. τ, which training changes.

    Reference:
        Chen, Liu, Xu, Darrell, Wang (2021), Meta-Baseline: Exploring Simple Meta-Learning for
        Few-Shot Learning, https://arxiv.org/abs/2003.04390. Section 3: with c_k the mean of f over
        class k, p(y = k | x) = softmax_k(τ · cos(f(x), c_k)), and τ learned.

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = CosinePrototypicalNetwork(tfmeta.backbones.conv4(None, (28, 28, 1)))
    >>> x = np.random.rand(6, 28, 28, 1).astype("float32")
    >>> learner.adapt(x, np.arange(6) % 3).predict(x, verbose=0).shape
    (6, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        initial_scale: float = 10.0,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        check_positive("initial_scale", initial_scale)
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
        self.initial_scale = initial_scale
        self.build_if_possible()

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        if not hasattr(self, "scale"):
            start = keras.initializers.Constant(self.initial_scale)
            self.scale = self.add_weight(shape=(), initializer=start, name="scale")

    def fit_head(self, features: tf.Tensor, members: tf.Tensor) -> Head:
        return {
            "directions": self._scale(features.dtype)
            * tf.transpose(unit(class_means(features, members)))
        }

    def _scale(self, dtype: tf.DType) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(self.scale), dtype)

    def head_logits(self, head: Head, features: Any, compare: Comparison) -> Any:
        return compare.product(unit(features), head["directions"])

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables of the encoder: the state holds the scale."""
        return self.encoder.variables
