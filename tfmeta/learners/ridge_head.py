"""R2D2's head: ridge regression on features, solved in closed form."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from tfmeta.checks import check_positive
from tfmeta.learners.comparisons import Comparison
from tfmeta.learners.feature_head import FeatureHead, Head
from tfmeta.networks import BatchNorm


@keras.saving.register_keras_serializable("tfmeta")
class RidgeHead(FeatureHead):
    """Fits one-hot labels by ridge regression on features, in closed form and differentiably.

    The equations are solved for the support examples, not for the features (Woodbury's identity):
    a task costs S³, and the encoder is trained through the solution.

    Deviations from the paper and its code:

    - λ is kept as its logarithm, so that it stays positive, and is learned. In the authors'
      experiments it is fixed, and 50 times the number of support examples in the equations below:
      the code divides features and labels by the square root of that number.
    - The paper's bias β, the same number in all logits, is left out: no softmax depends on it. The
      authors' code also appends a constant feature of 1, which gives each class a bias of its own;
      here there is none.
    - The encoder is any. The authors' has four blocks with up to 512 filters, and its features are
      those of the last two.

    Args:
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features of any shape.
        initial_regularization: float > 0. λ at the start of training, in the unit of squared
            features. Defaults to 1, a choice of this library.
        initial_scale: float > 0. The scale α of the logits at the start of training. Regression to
            labels 0 and 1 gives small numbers, for which a softmax is nearly uniform. Defaults to
            10, as in the authors' experiments on Omniglot and CIFAR-FS; on miniImageNet they start
            at 0.0001.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

    Attributes:
        log_regularization: keras.Variable, scalar. ln λ, which training changes.
        scale: keras.Variable, scalar. α, which training changes.

    Reference:
        Bertinetto, Henriques, Torr, Vedaldi (2019), Meta-Learning with Differentiable Closed-Form
        Solvers, https://arxiv.org/abs/1805.08136. Equations (4) to (6): with the features X of the
        support set and its one-hot labels Y, W = Xᵀ(X Xᵀ + λI)⁻¹Y, and the logits of queries with
        features X' are α X'W + β. The authors' code is https://github.com/bertinetto/r2d2.

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = RidgeHead(tfmeta.backbones.conv4(None, (28, 28, 1)))
    >>> x = np.random.rand(6, 28, 28, 1).astype("float32")
    >>> learner.adapt(x, np.arange(6) % 3).predict(x, verbose=0).shape
    (6, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        initial_regularization: float = 1.0,
        initial_scale: float = 10.0,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        check_positive("initial_regularization", initial_regularization)
        check_positive("initial_scale", initial_scale)
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
        self.initial_regularization = initial_regularization
        self.initial_scale = initial_scale
        self.build_if_possible()

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        if hasattr(self, "scale"):
            return
        for name, value in (
            ("log_regularization", math.log(self.initial_regularization)),
            ("scale", self.initial_scale),
        ):
            start = keras.initializers.Constant(value)
            setattr(self, name, self.add_weight(shape=(), initializer=start, name=name))

    def fit_head(self, features: tf.Tensor, members: tf.Tensor) -> Head:
        # A row of zeros for padding: its equation is λ times an unknown equals 0.
        features *= tf.reduce_sum(members, axis=1, keepdims=True)
        scale, log_regularization = (
            tf.cast(tf.convert_to_tensor(v), features.dtype)
            for v in (self.scale, self.log_regularization)
        )
        products = tf.matmul(features, features, transpose_b=True)
        # A λ below the rounding of the products could not be told from 0.
        least = 1e-12 * tf.reduce_max(tf.linalg.diag_part(products))
        strength = tf.maximum(tf.exp(log_regularization), tf.stop_gradient(least))
        ridge = strength * tf.eye(tf.shape(products)[0], dtype=products.dtype)
        solution = tf.linalg.cholesky_solve(tf.linalg.cholesky(products + ridge), members)
        return {"weights": scale * tf.matmul(features, solution, transpose_a=True)}

    def head_logits(self, head: Head, features: Any, compare: Comparison) -> Any:
        return compare.product(features, head["weights"])

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables of the encoder: the state holds the head."""
        return self.encoder.variables
