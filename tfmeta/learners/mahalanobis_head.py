"""The head of Simple CNAPS: Mahalanobis distances with shrunk covariances of the classes."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.checks import check_positive
from tfmeta.learners.comparisons import Comparison, negative_squared_distances
from tfmeta.learners.feature_head import FeatureHead, Head, class_means
from tfmeta.networks import BatchNorm


@keras.saving.register_keras_serializable("tfmeta")
class MahalanobisHead(FeatureHead):
    """Classifies a query by its Mahalanobis distance to each class's mean. It has no parameters.

    A class's covariance is shrunk towards that of the whole support set, the more the fewer
    examples the class has. No matrix of the size of the features is made: the covariances of S
    examples have a rank of at most 2S, and a task costs n_way · (2S)³.

    Deviations from the paper and its code:

    - This is the head alone. Simple CNAPS also adapts the encoder to each task, by FiLM layers
      whose parameters another network predicts from the support set.
    - The logits have the factor ½ of a Gaussian's log-density. The authors' code leaves it out,
      which doubles the logits and changes no prediction.
    - The covariance of a single example is zero. For a class of one example, the authors' code adds
      half the variance across this example's features to every entry of Q_k.

    Args:
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features of any shape.
        regularization: float > 0. The multiple β of the identity. Its unit is that of squared
            features. Defaults to 1, as in the authors' code.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

    Reference:
        Bateni, Goyal, Masrani, Wood, Sigal (2020), Improved Few-Shot Visual Classification,
        https://arxiv.org/abs/1912.03432. Equations (1) to (3): with the mean μ_k and the covariance
        Σ_k of class k, of n_k examples, and the covariance Σ of all examples,
        Q_k = λ_k Σ_k + (1 − λ_k) Σ + βI, λ_k = n_k / (n_k + 1), and the logits are
        −½ (f(x) − μ_k)ᵀ Q_k⁻¹ (f(x) − μ_k). Covariances are divided by the number of examples
        less 1. The authors' code is https://github.com/peymanbateni/simple-cnaps.

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = MahalanobisHead(tfmeta.backbones.conv4(None, (28, 28, 1)))
    >>> x = np.random.rand(6, 28, 28, 1).astype("float32")
    >>> learner.adapt(x, np.arange(6) % 3).predict(x, verbose=0).shape
    (6, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        regularization: float = 1.0,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        check_positive("regularization", regularization)
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
        self.regularization = regularization
        self.build_if_possible()

    @property
    def head_dtype(self) -> str:
        """The dtype float64: of large features, small differences of squares are left."""
        return "float64"

    def fit_head(self, features: tf.Tensor, members: tf.Tensor) -> Head:
        means = class_means(features, members)
        exists = tf.reduce_sum(members, axis=1, keepdims=True)
        mean = tf.reduce_sum(exists * features, axis=0) / tf.reduce_sum(exists)
        n_examples = tf.reduce_sum(members, axis=0)
        shrinkage = n_examples / (n_examples + 1)
        # Q_k = B_kᵀB_k + βI: half of the rows of B_k, [2S, d], are the deviations from the class's
        # mean, and half those from the mean of all. Rows of other classes and padding are zeros.
        of_class = tf.sqrt(shrinkage / tf.maximum(n_examples - 1, 1))[:, None, None]
        of_class *= tf.transpose(members)[:, :, None] * (features - means[:, None])
        of_all = tf.sqrt((1 - shrinkage) / tf.maximum(tf.reduce_sum(exists) - 1, 1))[:, None, None]
        of_all *= exists * (features - mean)
        rows = tf.concat([of_class, of_all], axis=1)
        # Woodbury: βQ_k⁻¹ = I − B_kᵀ(B_k B_kᵀ + βI)⁻¹B_k = I − R_kᵀR_k, with R_k = L⁻¹B_k and
        # LLᵀ = B_k B_kᵀ + βI.
        products = tf.matmul(rows, rows, transpose_b=True)
        ridge = self.regularization * tf.eye(tf.shape(products)[-1], dtype=products.dtype)
        reduced = tf.linalg.triangular_solve(tf.linalg.cholesky(products + ridge), rows)
        return {
            "means": means,
            "directions": reduced,
            "offsets": -tf.linalg.matvec(reduced, means),
        }

    def head_logits(self, head: Head, features: Any, compare: Comparison) -> Any:
        means, directions = head["means"], head["directions"]
        distances = negative_squared_distances(features, means, compare.product, compare.shifted)
        # R_k(f − μ_k) for all classes at once.
        n_way, rank, n_features = _sizes(directions)
        matrix = tf.transpose(tf.reshape(directions, [-1, n_features]))
        projected = compare.product(features, matrix, tf.reshape(head["offsets"], [-1]))
        projected = keras.ops.reshape(projected, (-1, n_way, rank))
        explained = keras.ops.sum(keras.ops.square(projected), axis=-1)
        return (distances + explained) / (2 * self.regularization)

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables of the encoder: the head has none."""
        return self.encoder.variables


def _sizes(x: tf.Tensor) -> list[Any]:
    """Returns the sizes of a tensor: integers where they are known, as in a plain Keras model."""
    return [tf.shape(x)[i] if size is None else size for i, size in enumerate(x.shape)]
