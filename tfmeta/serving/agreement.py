"""How far two answers may differ by rounding alone, and the comparison of answers.

A batch of another size is computed by other kernels, which round differently. So answers that
should be equal are equal only within:

1. *rounding*: `RELATIVE` and `ABSOLUTE`, or for half precision a few of its roundings;
2. *slack*, if the kernels of the inner steps differ, because the steps enlarge rounding. How much
   they do is measured (`measured_slack`), and capped at `MOST_SLACK` of the answers' range: a
   learner that enlarges rounding to more than that has no reproducible answers, and any wrong
   answer would pass.

At the edge of a ReLU or of a maximum, the gradient of an inner step jumps. Rounding that carries
an activation over such an edge moves the answers of that task further than what was measured on
other rounding. It rarely happens, and to tasks one by one. So in `difference_by_task` every task
must agree within the cap, and more than half of the tasks within what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfmeta.serving.errors import ServableError
from tfmeta.serving.loaded_servable import LoadedServable
from tfmeta.serving.warmup import Request

RELATIVE, ABSOLUTE = 1e-4, 1e-5
# The rounding unit of each dtype. Half precision may differ by ROUNDINGS units.
EPSILON = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}
ROUNDINGS = 16

# To measure what rounding does, the examples are moved by NUDGE rounding units, N_NUDGES times.
# The slack is ENLARGED times the largest effect, because kernels round more than their inputs.
NUDGE, N_NUDGES, ENLARGED = 8, 5, 10
# The most that slack may be, as a part of the range of the answers.
MOST_SLACK = 0.05


def measured_slack(
    servable: LoadedServable,
    request: Request,
    answer: Mapping[str, np.ndarray],
    input_name: str,
    compute_dtype: str,
) -> dict[str, float]:
    """Measures how far rounding an input may move each output.

    Args:
        servable: LoadedServable.
        request: Request.
        answer: dict of arrays. The servable's answer to the request.
        input_name: str. The input to move. If the request does not have it (encoded images cannot
            be moved by roundings), or it holds integers, the outputs' own rounding is returned.
        compute_dtype: str. The dtype whose roundings to move by.

    Returns:
        The slack of each output of numbers, at most `largest_slack` of it.
    """
    answer = {key: value for key, value in answer.items() if value.dtype != object}
    slack = {key: _rounding_of(value) for key, value in answer.items()}
    x = request.inputs.get(input_name)
    if x is None or np.issubdtype(x.dtype, np.integer):
        return slack
    rng = np.random.default_rng(0)
    for _ in range(N_NUDGES):
        nudge = NUDGE * EPSILON[compute_dtype] * rng.choice([-1.0, 1.0], size=x.shape)
        nudged = request.with_inputs({input_name: x * (1 + nudge)})
        nudged_answer = servable.answer(nudged, f"{input_name} rounded differently")
        for key, value in answer.items():
            effect = float(np.abs(nudged_answer[key] - value).max())
            slack[key] = max(slack[key], ENLARGED * effect)
    return {key: min(slack[key], largest_slack(value)) for key, value in answer.items()}


def largest_slack(answer: np.ndarray) -> float:
    """Returns the cap of the slack of an output: a part of its range, but at least its rounding."""
    return max(_rounding_of(answer), MOST_SLACK * float(np.ptp(answer)))


def _rounding_of(answer: np.ndarray) -> float:
    return RELATIVE * float(np.abs(answer).max(initial=0.0))


def difference(
    what: str,
    answer: np.ndarray,
    expected: np.ndarray,
    requirement: str,
    compute_dtype: str,
    slack: float = 0.0,
) -> float:
    """Compares two answers.

    Args:
        what: str. What is compared, for the error.
        answer: array.
        expected: array. What the answer should be.
        requirement: str. Why they must not differ, for the error.
        compute_dtype: str. The dtype that the model's layers compute in.
        slack: float. How far they may differ beyond rounding. Defaults to 0.0.

    Returns:
        The largest difference.

    Raises:
        ServableError: If it is more than rounding and slack, or the answers are of other shapes.
    """
    if answer.dtype == object:
        if not np.array_equal(answer, expected):
            raise ServableError(f"{what} differ: {requirement}")
        return 0.0
    distances, allowed = _distances(what, answer, expected, requirement, compute_dtype)
    largest = float(distances.max(initial=0.0))
    if not (distances <= allowed + slack).all():
        raise ServableError(f"{what} differ by {largest:.2g}: {requirement}")
    return largest


def difference_by_task(
    what: str,
    answer: np.ndarray,
    expected: np.ndarray,
    requirement: str,
    compute_dtype: str,
    slack: float,
) -> float:
    """Compares the answers for tasks `[T, …]`: most within the slack, and all within its cap.

    See the module for why, and `difference` for the arguments.

    Raises:
        ServableError: If a task differs by more than the cap, or half of the tasks by more than
            the slack.
    """
    largest = difference(
        what, answer, expected, requirement, compute_dtype, largest_slack(expected)
    )
    distances, allowed = _distances(what, answer, expected, requirement, compute_dtype)
    n_tasks = len(distances)
    is_within = np.reshape(distances <= allowed + slack, (n_tasks, -1)).all(axis=1)
    n_jumped = n_tasks - int(is_within.sum())
    if 2 * n_jumped >= n_tasks:
        raise ServableError(
            f"{what} differ by {largest:.2g}, in {n_jumped} of {n_tasks} tasks by more than "
            f"rounding may: {requirement}"
        )
    return largest


def _distances(
    what: str, answer: np.ndarray, expected: np.ndarray, requirement: str, compute_dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns how far the elements of two answers are apart, and how far rounding may move them."""
    if answer.shape != expected.shape:
        raise ServableError(
            f"{what} differ by shapes {answer.shape} and {expected.shape}: {requirement}"
        )
    # NumPy does not compare bfloat16.
    answer, expected = answer.astype("float64"), expected.astype("float64")
    relative, absolute = RELATIVE, ABSOLUTE
    if EPSILON[compute_dtype] > EPSILON["float32"]:
        # Small answers are sums of large numbers, and inherit what those lost.
        relative = ROUNDINGS * EPSILON[compute_dtype]
        absolute = relative * float(np.abs(expected).max(initial=0.0))
    return np.abs(answer - expected), absolute + relative * np.abs(expected)
