"""Names all checks, selects those that apply to a case, and runs one."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from tfmeta.testing import (
    contract,
    files,
    learning,
    precision,
    steps,
    support_and_queries,
    tasks,
)
from tfmeta.testing.case import Case
from tfmeta.testing.learner_runs import has_custom_training, is_transductive

CHECKS: dict[str, Callable[[Case], None]] = {
    "contract": contract.check_contract,
    "eager_equals_graph": steps.check_eager_equals_graph,
    "train_step_equals_default": steps.check_train_step_equals_default,
    "vectorized_equals_loop": tasks.check_vectorized_equals_loop,
    "task_order": tasks.check_task_order,
    "meta_batch_size": tasks.check_meta_batch_size,
    "query_order": support_and_queries.check_query_order,
    "other_queries": support_and_queries.check_other_queries,
    "support_order": support_and_queries.check_support_order,
    "label_permutation": support_and_queries.check_label_permutation,
    "masking": support_and_queries.check_masking,
    "call_changes_nothing": files.check_call_changes_nothing,
    "keras_round_trip": files.check_keras_round_trip,
    "adapted_model": files.check_adapted_model,
    "float64": precision.check_float64,
    "mixed_bfloat16": precision.check_mixed_bfloat16,
    "learning": learning.check_learning,
    "bad_input": contract.check_bad_input,
}


def checks(case: Case) -> list[str]:
    """Names the checks that apply to a case.

    No learner is made if the case says whether it is `transductive` and has `custom_training`;
    otherwise one is made to find out, once per case.

    Args:
        case: Case. The learner and what it promises.

    Returns:
        Keys of `CHECKS`, in their order.
    """
    applies = {
        "train_step_equals_default": not has_custom_training(case),
        "other_queries": not is_transductive(case),
        "support_order": not case.support_order_matters,
        "label_permutation": case.n_way is not None,
    }
    return [name for name in CHECKS if applies.get(name, True)]


def run(check: str, case: Case) -> None:
    """Checks one property of a new learner of this case, whether or not it applies to it.

    Everything is seeded: a check passes always or never. The global random state is reseeded; the
    float type and the dtype policy are restored afterwards.

    Args:
        check: str. A key of `CHECKS`.
        case: Case. The learner and what it promises.

    Raises:
        AssertionError: If the property does not hold, or the learner raises an error on the way.
        ValueError: If there is no such check.
    """
    if check not in CHECKS:
        raise ValueError(f"check must be one of {sorted(CHECKS)}; got {check!r}.")
    try:
        CHECKS[check](case)
    except Exception as error:
        reason = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        promise = (inspect.getdoc(CHECKS[check]) or "").split("\n")[0]
        raise AssertionError(
            f"{case.name} fails {check!r}. Expected: {promise}\n{reason}{error}"
        ) from error
