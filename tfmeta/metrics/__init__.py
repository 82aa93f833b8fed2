"""Keras metrics of how far predicted probabilities and variances can be trusted."""

from tfmeta.metrics.expected_calibration_error import ExpectedCalibrationError
from tfmeta.metrics.gaussian_negative_log_likelihood import GaussianNegativeLogLikelihood
from tfmeta.metrics.interval_coverage import IntervalCoverage

__all__ = ["ExpectedCalibrationError", "GaussianNegativeLogLikelihood", "IntervalCoverage"]
