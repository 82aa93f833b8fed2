"""RFS's head: logistic regression on L2-normalised features."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.checks import check_integer, check_positive
from tfmeta.learners.comparisons import Comparison, unit
from tfmeta.learners.feature_head import FeatureHead, Head
from tfmeta.learners.logistic_regression import fit_logistic_regression
from tfmeta.networks import BatchNorm


@keras.saving.register_keras_serializable("tfmeta")
class LogisticHead(FeatureHead):
    """Fits multinomial logistic regression with an L2 penalty to L2-normalised features.

    The fit is that of scikit-learn's `LogisticRegression(C=inverse_regularization)`, by a fixed
    number of damped Newton steps in the graph. Two classes are fitted like more, with a softmax,
    as in the paper's code; scikit-learn then fits one sigmoid: the same with twice the C.

    The encoder can be trained through the solution: its derivative is the implicit one, which is
    exact at the minimum, and costs no more than one step.

    Deviations from the paper and its code: there the encoder is trained by ordinary classification
    of the base classes and distilled, not in episodes. Bring such an encoder. The authors' code
    fits five augmented copies of each support image; here each image counts once.

    Args:
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features of any shape.
        inverse_regularization: float > 0. C, the weight of the examples' summed loss beside half
            the sum of squared weights. Defaults to 1, scikit-learn's, as in the authors' code.
        newton_steps: int ≥ 1. How many steps. Six reach rounding with C = 1, and ten up to about
            C = 1,000. Defaults to 10.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

    Reference:
        Tian, Wang, Krishnan, Tenenbaum, Isola (2020), Rethinking Few-Shot Image Classification: A
        Good Embedding Is All You Need?, https://arxiv.org/abs/2003.11539. Section 3.3: the weights
        W and biases b of a task minimise the cross-entropy of f(x)/‖f(x)‖ W + b on the support set
        plus a penalty of W's squares. The authors' code is https://github.com/WangYueFt/rfs.

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = LogisticHead(tfmeta.backbones.conv4(None, (28, 28, 1)))
    >>> x = np.random.rand(6, 28, 28, 1).astype("float32")
    >>> learner.adapt(x, np.arange(6) % 3).predict(x, verbose=0).shape
    (6, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        inverse_regularization: float = 1.0,
        newton_steps: int = 10,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        check_positive("inverse_regularization", inverse_regularization)
        check_integer("newton_steps", newton_steps, 1)
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
        self.inverse_regularization = inverse_regularization
        self.newton_steps = newton_steps
        self.build_if_possible()

    def fit_head(self, features: tf.Tensor, members: tf.Tensor) -> Head:
        features = unit(features) * tf.reduce_sum(members, axis=1, keepdims=True)
        solution = fit_logistic_regression(
            tf.matmul(features, features, transpose_b=True),
            members,
            self.inverse_regularization,
            self.newton_steps,
        )
        return {
            "weights": tf.matmul(features, solution.dual, transpose_a=True),
            "bias": solution.bias,
        }

    def head_logits(self, head: Head, features: Any, compare: Comparison) -> Any:
        return compare.product(unit(features), head["weights"], head["bias"])

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables of the encoder: the state holds the weights."""
        return self.encoder.variables
