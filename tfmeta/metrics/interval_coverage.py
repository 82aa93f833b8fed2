"""The share of targets within their predicted intervals."""

from __future__ import annotations

import numbers
import statistics
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfmeta")
class IntervalCoverage(keras.metrics.Mean):
    """Measures the share of targets within the central intervals of predicted Gaussians.

    Of calibrated predictions, the share is the level.

    Args:
        level: float between 0 and 1. The probability of an interval. Defaults to 0.95, which is the
            mean ± 1.96 standard deviations.
        name: str. The metric's name. Defaults to `"interval_coverage"`.
        **kwargs: As in `keras.metrics.Metric`: `dtype`.

    Example:

    >>> metric = IntervalCoverage()
    >>> metric.update_state([[1.9], [2.1]], ([[0.0], [0.0]], [[1.0], [1.0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(self, level: float = 0.95, name: str = "interval_coverage", **kwargs: Any) -> None:
        if not isinstance(level, numbers.Real) or not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1; got {level!r}.")
        super().__init__(name=name, **kwargs)
        self.level: float = level

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
        width = statistics.NormalDist().inv_cdf((1 + self.level) / 2) * ops.sqrt(variance)
        inside = ops.cast(ops.abs(y - mean) <= width, self.dtype)
        super().update_state(inside, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "level": self.level}
