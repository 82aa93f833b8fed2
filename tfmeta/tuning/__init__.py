"""Hyper-parameters of a new task, from what was observed on past tasks.

Functions choose the first configurations to try: `greedy_portfolio`, `learn_initial_set` and
`nearest_tasks`. `propose` chooses others, by a `DeepKernel`, which knows what past tasks have in
common and the few scores of the new task, and by the past tasks themselves. `WarmStartOracle` does
both for KerasTuner, and `tune` for recipes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfmeta.tuning.deep_kernel import DeepKernel
from tfmeta.tuning.expected_improvement import expected_improvement
from tfmeta.tuning.first_configurations import first_configurations
from tfmeta.tuning.greedy_portfolio import greedy_portfolio
from tfmeta.tuning.initial_set import learn_initial_set, soft_minimum
from tfmeta.tuning.nearest_tasks import nearest_tasks
from tfmeta.tuning.past_losses import past_losses
from tfmeta.tuning.past_task import PastTask
from tfmeta.tuning.proposals import propose
from tfmeta.tuning.search_space import Range, SearchSpace
from tfmeta.tuning.transfer_improvement import transfer_improvement
from tfmeta.tuning.tuning_folder import BEST, read_table

if TYPE_CHECKING:
    from tfmeta.tuning.oracle import WarmStartOracle as WarmStartOracle
    from tfmeta.tuning.recipe_tuning import tune as tune

# `WarmStartOracle` and `tune` are public, too, but `from tfmeta.tuning import *` must not need
# KerasTuner.
__all__ = [
    "BEST",
    "DeepKernel",
    "PastTask",
    "Range",
    "SearchSpace",
    "expected_improvement",
    "first_configurations",
    "greedy_portfolio",
    "learn_initial_set",
    "nearest_tasks",
    "past_losses",
    "propose",
    "read_table",
    "soft_minimum",
    "transfer_improvement",
]

_WITH_KERAS_TUNER = {
    "WarmStartOracle": "tfmeta.tuning.oracle",
    "tune": "tfmeta.tuning.recipe_tuning",
}


def __getattr__(name: str) -> Any:
    """Imports what needs KerasTuner when it is first used (PEP 562)."""
    if name not in _WITH_KERAS_TUNER:
        raise AttributeError(f"module 'tfmeta.tuning' has no attribute {name!r}")
    return getattr(importlib.import_module(_WITH_KERAS_TUNER[name]), name)
