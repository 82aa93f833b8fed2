"""The options of a learner's inner update rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Tag

from tfmeta.recipes.options import Decay, Named, Number, PositiveNumber, name_of, refusal
from tfmeta.registry import hint


class SGD(Named):
    """Gradient descent with a fixed step size."""

    name: Literal["sgd"]


class Momentum(Named):
    """Gradient descent with momentum; its step size and momentum are meta-learned."""

    name: Literal["momentum"]
    momentum: Number = 0.9
    """Initial momentum."""


class PerParameter(Named):
    """A meta-learned step size for each parameter, as in Meta-SGD."""

    name: Literal["per_parameter"]


class PerLayerPerStep(Named):
    """A meta-learned step size for each weight tensor and inner step, as in MAML++."""

    name: Literal["per_layer_per_step"]


class Adam(Named):
    """Adam with bias correction."""

    name: Literal["adam"]
    beta_1: Decay = 0.0
    """Decay of the first moment."""
    beta_2: Decay = 0.999
    """Decay of the second moment."""
    epsilon: PositiveNumber = 1e-8
    """Added to the root of the second moment."""


class Schedule(Named):
    """Gradient descent with a meta-learned step size, momentum and weight decay per inner step."""

    name: Literal["schedule"]
    momentum: Number = 0.0
    """Initial momentum of every step."""
    weight_decay: Number = 0.0
    """Initial weight decay of every step."""


class Clipped(Named):
    """Another rule, on gradients that are clipped before."""

    name: Literal["clipped"]
    rule: Literal["sgd", "momentum", "per_parameter", "per_layer_per_step", "adam", "schedule"] = (
        "sgd"
    )
    """The other rule, with its defaults."""
    global_clipnorm: PositiveNumber | None = None
    """The largest norm of all gradients of a task."""
    clipvalue: PositiveNumber | None = None
    """The largest magnitude of each number, instead."""


INNER_RULES: dict[str, type[Named]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "per_parameter": PerParameter,
    "per_layer_per_step": PerLayerPerStep,
    "adam": Adam,
    "schedule": Schedule,
    "clipped": Clipped,
}


BY_NAME_ALONE = "a name alone"


def _check(value: Any) -> Any:
    """Checks that a rule is known, whether given by its name or with options."""
    if not isinstance(value, str | Mapping | Named):
        raise refusal(f"must be the name of a rule or {{name: …, option: …}}; got {value!r}.")
    name = value if isinstance(value, str) else name_of(value)
    if name not in INNER_RULES:
        raise refusal(f"unknown name {name!r}; {hint(name, INNER_RULES)}")
    return value


def _tag(value: Any) -> str:
    return BY_NAME_ALONE if isinstance(value, str) else name_of(value)


InnerRule: TypeAlias = Annotated[
    Annotated[str, Tag(BY_NAME_ALONE)]
    | Annotated[SGD, Tag("sgd")]
    | Annotated[Momentum, Tag("momentum")]
    | Annotated[PerParameter, Tag("per_parameter")]
    | Annotated[PerLayerPerStep, Tag("per_layer_per_step")]
    | Annotated[Adam, Tag("adam")]
    | Annotated[Schedule, Tag("schedule")]
    | Annotated[Clipped, Tag("clipped")],
    Discriminator(_tag),
    BeforeValidator(_check),
]
