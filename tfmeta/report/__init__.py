"""Measured results. TensorFlow is not imported."""

from tfmeta.report.estimate import Estimate, ci95
from tfmeta.report.evaluation import Evaluation
from tfmeta.report.report import Report

__all__ = ["Estimate", "Evaluation", "Report", "ci95"]
