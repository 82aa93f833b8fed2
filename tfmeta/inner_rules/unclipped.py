"""Inner update rules by name, without the one that clips gradients for another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmeta.inner_rules.adam import Adam
from tfmeta.inner_rules.momentum import Momentum
from tfmeta.inner_rules.per_layer_per_step import PerLayerPerStep
from tfmeta.inner_rules.per_parameter import PerParameter
from tfmeta.inner_rules.rule import InnerRule
from tfmeta.inner_rules.schedule import Schedule
from tfmeta.inner_rules.sgd import SGD
from tfmeta.registry import find

UNCLIPPED: dict[str, type[InnerRule]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "per_parameter": PerParameter,
    "per_layer_per_step": PerLayerPerStep,
    "adam": Adam,
    "schedule": Schedule,
}


def rule_of(rule: Any, by_name: Mapping[str, type[InnerRule]]) -> InnerRule:
    """Returns a rule by its name, by `{name: …, option: …}`, or itself.

    Args:
        rule: str, dict or InnerRule. The name, the name with options, or the rule.
        by_name: mapping from str to class. The rules.

    Raises:
        ValueError: If there is no rule of this name, or it has no such option.
    """
    if isinstance(rule, InnerRule):
        return rule
    if not isinstance(rule, str | Mapping):
        raise ValueError(
            f"An inner rule is a name, {{name: …, option: …}} or an InnerRule object; got {rule!r}."
        )
    options = {"name": rule} if isinstance(rule, str) else dict(rule)
    name = options.pop("name", None)
    try:
        return find("inner rule", name, by_name)(**options)
    except TypeError as error:
        raise ValueError(f"inner rule {name!r}: {error}") from error
