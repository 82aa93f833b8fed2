"""Inner update rules: how an inner step changes a task's weights, and what is meta-learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmeta.inner_rules.adam import Adam
from tfmeta.inner_rules.clipped import Clipped
from tfmeta.inner_rules.lstm import LSTMRule
from tfmeta.inner_rules.momentum import Momentum
from tfmeta.inner_rules.per_layer_per_step import PerLayerPerStep
from tfmeta.inner_rules.per_parameter import PerParameter
from tfmeta.inner_rules.rule import InnerRule, Step, Tensors
from tfmeta.inner_rules.schedule import Schedule
from tfmeta.inner_rules.sgd import SGD
from tfmeta.inner_rules.unclipped import UNCLIPPED, rule_of

BY_NAME: dict[str, type[InnerRule]] = {**UNCLIPPED, "clipped": Clipped}


def get(rule: str | Mapping[str, Any] | InnerRule) -> InnerRule:
    """Returns an inner update rule by its name, by `{name: …, option: …}`, or itself.

    Args:
        rule: str, dict or InnerRule. The name, the name with options, or the rule.

    Raises:
        ValueError: If there is no rule of this name, or it has no such option.

    Example:

    >>> get({"name": "momentum", "momentum": 0.5}).initial_momentum
    0.5
    """
    return rule_of(rule, BY_NAME)


__all__ = [
    "BY_NAME",
    "SGD",
    "Adam",
    "Clipped",
    "InnerRule",
    "LSTMRule",
    "Momentum",
    "PerLayerPerStep",
    "PerParameter",
    "Schedule",
    "Step",
    "Tensors",
    "get",
]
