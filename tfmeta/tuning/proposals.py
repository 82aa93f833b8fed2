"""The next configuration to try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfmeta.tuning.expected_improvement import expected_improvement
from tfmeta.tuning.past_task import PastTask
from tfmeta.tuning.transfer_improvement import transfer_improvement


def propose(
    predict: Callable[[Any], tuple[Any, Any]],
    observed: PastTask,
    candidates: np.ndarray,
    *,
    losses: Sequence[Callable[[Any], Any]] = (),
    unit: float = 1.0,
) -> int:
    """Returns the candidate with the greatest expected improvement.

    With past tasks, `transfer_improvement` is added: the transfer acquisition function.

    Args:
        predict: Callable. From points `[M, d]` to mean and standard deviation `[M]` of their
            scores, such as what `DeepKernel.posterior_of` returns.
        observed: PastTask. What was observed in the task so far.
        candidates: array `[M, d]`. The points to choose from.
        losses: sequence of Callable. What `past_losses` returns, for past tasks. Defaults to none.
        unit: float > 0. The range that scores of a task have, to which the losses of past tasks are
            scaled. Defaults to 1.

    Returns:
        int. The index of a candidate. One that was tried already is chosen only if all were.

    Example:

    >>> def predict(points):
    ...     return points[:, 0], np.full(len(points), 0.1)
    >>> observed = PastTask(np.array([[1.0], [0.0]]), np.array([0.9, 0.1]))
    >>> propose(predict, observed, np.array([[0.0], [0.8], [1.0]]))
    1
    """
    mean, std = predict(candidates)
    gain = expected_improvement(mean, std, float(np.max(observed.scores))) / unit
    if losses:
        of_candidates = np.stack([np.asarray(loss(candidates)) for loss in losses])
        of_tried = np.stack([np.asarray(loss(observed.points)) for loss in losses])
        # A sum over the past tasks, beside the new one.
        gain += len(losses) * transfer_improvement(of_candidates, of_tried, observed.scores)
    # Far from the best, all gains are 0 in float64; then the highest mean decides.
    gain = gain + 1e-12 * np.argsort(np.argsort(np.asarray(mean))) / len(gain) * (gain.max() == 0)
    rows = {tuple(point) for point in np.round(observed.points, 9)}
    is_new = np.array([tuple(point) not in rows for point in np.round(candidates, 9)])
    return int(np.where(is_new, gain, gain - np.inf).argmax() if is_new.any() else gain.argmax())
