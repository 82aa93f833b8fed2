"""The expected calibration error of predicted probabilities."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfmeta.checks import check_integer


@keras.saving.register_keras_serializable("tfmeta")
class ExpectedCalibrationError(keras.metrics.Metric):
    """Measures how far the confidence of a classifier is from its accuracy.

    Predictions are sorted into bins of equal width by their confidence, the largest probability.
    Bin b holds the confidences from b / n_bins to (b + 1) / n_bins; of a limit, which is in the bin
    below, the error does not depend much.

    Args:
        n_bins: int ≥ 1. The number of bins. Defaults to 15, as in the paper.
        from_logits: bool. Whether predictions are logits, not probabilities. Defaults to True.
        name: str. The metric's name. Defaults to `"expected_calibration_error"`.
        **kwargs: As in `keras.metrics.Metric`: `dtype`.

    Attributes:
        weights_of_bins: keras.Variable `[n_bins]`. The predictions in each bin.
        confidences: keras.Variable `[n_bins]`. The sum of their confidences.
        hits: keras.Variable `[n_bins]`. How many of them are right.

    Reference:
        Guo, Pleiss, Sun, Weinberger (2017), On Calibration of Modern Neural Networks,
        https://arxiv.org/abs/1706.04599. Equation (3): Σ_b |B_b| / n · |acc(B_b) − conf(B_b)|.

    Example:

    >>> metric = ExpectedCalibrationError(n_bins=2, from_logits=False)
    >>> metric.update_state([0, 1], [[0.9, 0.1], [0.7, 0.3]])
    >>> round(float(metric.result()), 4)  # Confidence 0.8, accuracy 0.5.
    0.3
    """

    def __init__(
        self,
        n_bins: int = 15,
        from_logits: bool = True,
        name: str = "expected_calibration_error",
        **kwargs: Any,
    ) -> None:
        check_integer("n_bins", n_bins, 1)
        super().__init__(name=name, **kwargs)
        self.n_bins, self.from_logits = n_bins, from_logits
        self.weights_of_bins, self.confidences, self.hits = (
            self.add_variable((n_bins,), initializer="zeros", name=part)
            for part in ("weights_of_bins", "confidences", "hits")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds predictions.

        Args:
            y_true: tensor `[…]`. Labels.
            y_pred: tensor `[…, n_way]`. Logits or probabilities.
            sample_weight: tensor `[…]` or None. 0 for predictions that do not count. Defaults to
                None.
        """
        y_pred = ops.convert_to_tensor(y_pred)
        n_way = y_pred.shape[-1]
        y_pred = ops.cast(ops.reshape(y_pred, (-1, n_way)), self.dtype)
        y_true = ops.cast(ops.reshape(ops.convert_to_tensor(y_true), (-1,)), "int32")
        probabilities = ops.softmax(y_pred) if self.from_logits else y_pred
        confidence = ops.max(probabilities, axis=-1)
        hit = ops.cast(
            ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), y_true), self.dtype
        )
        if sample_weight is None:
            weight = ops.ones_like(confidence)
        else:
            weight = ops.reshape(ops.cast(sample_weight, self.dtype), (-1,))
        number = ops.cast(ops.ceil(confidence * self.n_bins), "int32") - 1
        members = ops.one_hot(ops.clip(number, 0, self.n_bins - 1), self.n_bins, dtype=self.dtype)
        for variable, value in (
            (self.weights_of_bins, ops.ones_like(confidence)),
            (self.confidences, confidence),
            (self.hits, hit),
        ):
            variable.assign_add(ops.sum((weight * value)[:, None] * members, axis=0))

    def result(self) -> Any:
        """Returns the error, from 0 to 1; 0 without predictions."""
        total = ops.sum(self.weights_of_bins)
        gaps = ops.sum(ops.abs(self.hits - self.confidences))
        return ops.divide_no_nan(gaps, total)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "n_bins": self.n_bins, "from_logits": self.from_logits}
