"""Baseline++: a cosine classifier, fitted to a task's features by gradient descent."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.checks import check_integer, check_positive
from tfmeta.learners.comparisons import Comparison, unit
from tfmeta.learners.feature_head import FeatureHead, Head, class_means
from tfmeta.networks import BatchNorm

MOMENTUM, DAMPENING, WEIGHT_DECAY = 0.9, 0.9, 1e-3


@keras.saving.register_keras_serializable("tfmeta")
class BaselinePlusPlus(FeatureHead):
    """Fits one weight vector per class by gradient descent; logits are scaled cosines to them.

    Deviations from the paper:

    - Each step takes the whole support set. The authors' code goes through it 100 times in random
      batches of 4, which for 25 examples are 700 steps. So the result depends neither on a seed nor
      on the order of the examples.
    - A class's vector starts at the mean of its L2-normalised features, not at random.
    - The vectors' lengths do not count in the cosines. The authors' code multiplies each class's
      cosine by a factor that it fits with the vectors.
    - There the encoder is trained by ordinary classification of the base classes, not in episodes.
      Here `fit` trains it in episodes, through all steps; or bring such an encoder.

    Args:
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features of any shape.
        learning_rate: float > 0. Step size of the gradient descent, whose momentum and dampening
            are 0.9 and whose weight decay is 0.001. Defaults to 0.01. All four are those of the
            authors' code.
        steps: int ≥ 0. How many steps. Defaults to 100, the number of passes in the authors' code.
        scale: float > 0. The factor of the cosines. Defaults to 2, as in the authors' code for up
            to 200 classes; for more, it takes 10.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

    Reference:
        Chen, Liu, Kira, Wang, Huang (2019), A Closer Look at Few-shot Classification,
        https://arxiv.org/abs/1904.04232. Section 3.2: s_k = cos(f(x), w_k), and
        p(y = k | x) = softmax_k(s_k), with a constant factor; the w_k are trained on the support
        set, with the encoder fixed. The authors' code is
        https://github.com/wyharveychen/CloserLookFewShot.

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = BaselinePlusPlus(tfmeta.backbones.conv4(None, (28, 28, 1)))
    >>> x = np.random.rand(6, 28, 28, 1).astype("float32")
    >>> learner.adapt(x, np.arange(6) % 3).predict(x, verbose=0).shape
    (6, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        learning_rate: float = 0.01,
        steps: int = 100,
        scale: float = 2.0,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        check_positive("learning_rate", learning_rate)
        check_integer("steps", steps, 0)
        check_positive("scale", scale)
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
        self.learning_rate = learning_rate
        self.steps = steps
        self.scale = scale
        self.build_if_possible()

    def fit_head(self, features: tf.Tensor, members: tf.Tensor) -> Head:
        features = unit(features)
        exists = tf.reduce_sum(members, axis=1, keepdims=True)
        absent = -1e9 * tf.cast(tf.reduce_sum(members, axis=0) == 0, members.dtype)
        share = exists / tf.reduce_sum(exists)

        def gradient(vectors: tf.Tensor) -> tf.Tensor:
            """The gradient of the mean cross-entropy, and of the weight decay."""
            directions = unit(vectors)
            logits = self.scale * tf.matmul(features, directions, transpose_b=True) + absent
            errors = self.scale * share * (tf.nn.softmax(logits) - members)
            of_directions = tf.matmul(errors, features, transpose_a=True)
            along = tf.reduce_sum(of_directions * directions, axis=1, keepdims=True) * directions
            squares = tf.reduce_sum(tf.square(vectors), axis=1, keepdims=True)
            inverse_lengths = tf.math.rsqrt(tf.maximum(squares, 1e-24))
            return inverse_lengths * (of_directions - along) + WEIGHT_DECAY * vectors

        def step(
            i: tf.Tensor, vectors: tf.Tensor, velocity: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # As in PyTorch, whose first velocity is the gradient itself.
            g = gradient(vectors)
            velocity = tf.where(i == 0, g, MOMENTUM * velocity + (1 - DAMPENING) * g)
            return i + 1, vectors - self.learning_rate * velocity, velocity

        start = class_means(features, members)
        _, vectors, _ = tf.while_loop(
            lambda i, *_: i < self.steps,
            step,
            (tf.constant(0), start, tf.zeros_like(start)),
            maximum_iterations=self.steps,
            parallel_iterations=1,
        )
        return {"directions": self.scale * tf.transpose(unit(vectors))}

    def head_logits(self, head: Head, features: Any, compare: Comparison) -> Any:
        return compare.product(unit(features), head["directions"])

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables of the encoder: the state holds the vectors."""
        return self.encoder.variables
