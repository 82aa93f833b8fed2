"""Metrics of calibration against values worked out by hand or with NumPy."""

import numpy as np
import pytest

from tfmeta import metrics


def test_calibration_error_by_hand():
    # Bins of width 0.25: (0.5, 0.75] has 0.6 right and 0.7 wrong, (0.75, 1] has 0.9 right twice
    # and 0.8 wrong. Gaps: |1 − 1.3| and |2 − 2.6|, of 5.
    confidences, right = [0.6, 0.7, 0.9, 0.9, 0.8], [1, 0, 1, 1, 0]
    y_pred = np.array([[c, 1 - c] for c in confidences])
    y_true = np.where(np.array(right) == 1, 0, 1)
    metric = metrics.ExpectedCalibrationError(n_bins=4, from_logits=False)
    metric.update_state(y_true[:2], y_pred[:2])
    metric.update_state(y_true[None, 2:], y_pred[None, 2:])
    np.testing.assert_allclose(metric.result(), 0.9 / 5, rtol=1e-6)
    np.testing.assert_allclose(metric.weights_of_bins, [0, 0, 2, 3])
    metric = metrics.ExpectedCalibrationError(n_bins=4)
    metric.update_state(y_true, np.log(y_pred) + 3, [1, 1, 0, 0, 0])
    np.testing.assert_allclose(metric.result(), 0.15, rtol=1e-6)


def test_labels_drawn_from_the_probabilities_are_calibrated():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), size=100_000)
    y = (p.cumsum(axis=1) < rng.uniform(size=(len(p), 1))).sum(axis=1).clip(0, 4)
    values = []
    for power in (1, 3):
        metric = metrics.ExpectedCalibrationError()
        metric.update_state(y, power * np.log(p))
        values.append(float(metric.result()))
    # 15 bins, each with a standard error of about 0.5 / √(100,000 / 15) = 0.006.
    assert values[0] < 0.006 and values[1] > 0.2


def test_likelihood_and_coverage_with_numpy():
    rng = np.random.default_rng(1)
    mean, sigma = rng.normal(size=(2, 300, 1))
    sigma = np.abs(sigma) + 0.5
    y = mean + sigma * rng.normal(size=mean.shape)
    weight = (rng.uniform(size=y.shape) < 0.5).astype(float)
    density = np.exp(-(((y - mean) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
    metric = metrics.GaussianNegativeLogLikelihood()
    metric.update_state(y, (mean, sigma**2), weight)
    np.testing.assert_allclose(metric.result(), -np.average(np.log(density), weights=weight), 1e-5)
    for level, width in ((0.95, 1.959964), (0.5, 0.6744898)):
        metric = metrics.IntervalCoverage(level)
        metric.update_state(y, (mean, sigma**2))
        inside = np.abs(y - mean) <= width * sigma
        np.testing.assert_allclose(metric.result(), inside.mean(), rtol=1e-6)
        assert metrics.IntervalCoverage.from_config(metric.get_config()).level == level


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        metrics.IntervalCoverage(95)
    with pytest.raises(ValueError, match="n_bins must be an integer ≥ 1"):
        metrics.ExpectedCalibrationError(0)
    config = metrics.ExpectedCalibrationError(7, from_logits=False).get_config()
    assert metrics.ExpectedCalibrationError.from_config(config).n_bins == 7
