"""The negative log-likelihood of targets under predicted means and variances."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfmeta")
class GaussianNegativeLogLikelihood(keras.metrics.Mean):
    """Averages −log p of targets under predicted Gaussians, in nats per target.

    Args:
        name: str. The metric's name. Defaults to `"gaussian_negative_log_likelihood"`.
        **kwargs: As in `keras.metrics.Metric`: `dtype`.

    Example:

    >>> metric = GaussianNegativeLogLikelihood()
    >>> metric.update_state([[1.0]], ([[1.0]], [[1.0]]))
    >>> round(float(metric.result()), 4)  # ln(2π) / 2
    0.9189
    """

    def __init__(self, name: str = "gaussian_negative_log_likelihood", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds predictions.

        Args:
            y_true: tensor `[…]`. Targets.
            y_pred: (mean, variance), tensors of the shape of `y_true`, as
                `tfmeta.AmortizedMAML.predict_distribution` returns them.
            sample_weight: tensor or None. 0 for targets that do not count. Defaults to None.
        """
        y, mean, variance = (
            ops.cast(ops.convert_to_tensor(part), self.dtype) for part in (y_true, *y_pred)
        )
        values = (ops.log(2 * math.pi * variance) + ops.square(y - mean) / variance) / 2
        super().update_state(values, sample_weight)
