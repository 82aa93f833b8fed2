"""Assertions about arrays and weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmeta.learners.meta_learner import MetaLearner

# Rounding of float32 through a few layers. Weights are always compared after plain SGD: Adam
# divides by the gradient's size and so turns rounding into whole steps.
RTOL, ATOL = 1e-4, 1e-5


def assert_close(
    actual: Any, expected: Any, message: str, rtol: float = RTOL, atol: float = ATOL
) -> None:
    """Asserts that two arrays are equal to rounding."""
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, err_msg=message)


def assert_weights_close(
    learner: MetaLearner,
    actual: list[np.ndarray],
    expected: list[np.ndarray],
    message: str,
    rtol: float = RTOL,
    atol: float = ATOL,
) -> None:
    """Asserts that two sets of weights of one learner are equal, and names the one that is not."""
    for variable, a, b in zip(learner.weights, actual, expected, strict=True):
        assert_close(a, b, f"{message}: {variable.path}", rtol, atol)
