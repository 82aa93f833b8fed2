"""Expected improvement, which tells what to try next."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special


def expected_improvement(mean: Any, std: Any, best: float) -> np.ndarray:
    """Returns how much a score that is normally distributed exceeds the best one, on average.

    Args:
        mean: array `[N]`. Expected scores; higher is better.
        std: array `[N]`, ≥ 0. Their standard deviations.
        best: float. The best score so far.

    Returns:
        float64 `[N]`. E[max(score − best, 0)].

    Reference:
        Jones, Schonlau & Welch (1998), "Efficient global optimization of expensive black-box
        functions", equation 15.

    Example:

    >>> expected_improvement([0.0, 2.0], [1.0, 0.0], best=0.0).round(3)
    array([0.399, 2.   ])
    """
    gain, std = np.asarray(mean, float) - best, np.asarray(std, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(std > 0, gain / std, 0)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.where(std > 0, gain * special.ndtr(z) + std * density, np.maximum(gain, 0))
