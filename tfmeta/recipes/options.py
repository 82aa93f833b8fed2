"""Base class of a recipe's sections, and the types of its values, with messages for each."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError, ValidationError, core_schema

from tfmeta import modes
from tfmeta.registry import hint


def refusal(message: str) -> PydanticCustomError:
    """Makes the error that a validator raises, with an unchanged message."""
    return PydanticCustomError("refused", "{message}", {"message": message})


def shown(value: Any) -> str:
    """Returns a value as an error shows it, cut if it is long."""
    text = _SHORT.repr(value)
    return text if len(text) <= 100 else f"{text[:97]}…"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 90
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 20
_SHORT.maxlevel = 5


class Options(pydantic.BaseModel):
    """Base class of a recipe's sections: a mapping with known keys and checked values."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, defer_build=True
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _check_keys(cls, given: Any) -> Any:
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise refusal(f"must be a mapping; got {shown(given)}.")
        for key in given:
            if key not in cls.model_fields:
                raise refusal(f"unknown key {shown(key)}; {hint(key, cls.model_fields)}")
        missing = [
            name
            for name, field in cls.model_fields.items()
            if field.is_required() and name not in given
        ]
        if missing:
            raise refusal(f"missing {missing}.")
        return given

    def given(self) -> dict[str, Any]:
        """Returns the options that were given, without the defaults, as plain values."""
        return self.model_dump(mode="json", exclude_unset=True)


class Named(Options):
    """Base class of options that are chosen by a name."""

    name: str


class Expected:
    """Describes the values of an option, for errors and for the documentation.

    Args:
        text: str. What is expected, as in "an integer > 0". Defaults to the values of the
            `Literal` that it annotates.
    """

    def __init__(self, text: str | None = None) -> None:
        self.text = text

    def of(self, annotation: Any) -> str:
        """Returns the text for an option with this type."""
        if self.text is not None:
            return self.text
        *others, last = (f'"{choice}"' for choice in get_args(annotation))
        return f"{', '.join(others)} or {last}" if others else last

    def accepts(self, value: Any) -> bool:
        """Returns whether a value of the right type is accepted."""
        return True

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        text = self.of(source)
        literals = get_args(source) if get_origin(source) is Literal else ()
        choices = [choice for choice in literals if isinstance(choice, str)]

        def validate(value: Any, validate_type: Any) -> Any:
            try:
                if self.accepts(valid := validate_type(value)):
                    return valid
            except ValidationError:
                pass
            advice = hint(value, choices) if isinstance(value, str) and choices else ""
            advice = f"; {advice}" if advice.startswith("did you mean") else "."
            raise refusal(f"must be {text}; got {shown(value)}{advice}")

        return core_schema.no_info_wrap_validator_function(validate, handler(source))


class Between(Expected):
    """Describes a number, a list of numbers or null, and bounds the numbers.

    Args:
        least: int or float. The least number.
        most: int or float. The largest number: more than any machine can use.
        text: str. What is expected, with `{}` for the bounds. Defaults to `"an integer {}"`.
    """

    def __init__(self, least: float, most: float, text: str = "an integer {}") -> None:
        bounds = [f"{n:,}" if isinstance(n, int) else f"{n:g}" for n in (least, most)]
        super().__init__(text.format(f"from {bounds[0]} to {bounds[1]}"))
        self.least, self.most = least, most

    def accepts(self, value: Any) -> bool:
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        return all(self.least <= number <= self.most for number in numbers)


def name_of(value: Any) -> str:
    """Returns the `name` in a section; raises an error if it is missing or not text."""
    if isinstance(value, Named):
        return value.name
    if not isinstance(value, Mapping):
        raise refusal(f"must be a mapping; got {shown(value)}.")
    if "name" not in value:
        raise refusal("missing ['name'].")
    if not isinstance(value["name"], str):
        raise refusal(f"name must be text; got {shown(value['name'])}.")
    return str(value["name"])


def known_name(names: Collection[str]) -> pydantic.BeforeValidator:
    """Returns a validator that refuses a section whose `name` is not among the names."""

    def check(value: Any) -> Any:
        if (name := name_of(value)) not in names:
            raise refusal(f"unknown name {shown(name)}; {hint(name, names)}")
        return value

    return pydantic.BeforeValidator(check)


# === Types of values ===


def _check_order(value: Any) -> Any:
    """Checks that a size is an integer, or a range [low, high] of integers."""
    bounds = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(bounds) != 2 or any(type(bound) is not int for bound in bounds):
        raise ValueError("not an integer or two")
    if bounds[0] > bounds[1]:
        raise ValueError("not in order")
    return value if isinstance(value, int) else bounds


def _check_list(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError("no list")
    return value


def _check_group_names(value: Any) -> Any:
    names = () if value is None else _check_list(value)
    if not all(isinstance(name, str) and 0 < len(name) <= MOST_PARTS for name in names):
        raise ValueError("no names")
    if value is not None and not 0 < len(set(names)) == len(names) <= MOST_PARTS:
        raise ValueError("none, or a name twice")
    return value


def _check_rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("not in order")
    return value


def _check_keras(value: Any) -> Any:
    if not isinstance(value, str) and not (isinstance(value, Mapping) and "class_name" in value):
        raise ValueError("not a name or a serialised object")
    check_plain(value)
    return value


def absolute(path: str) -> str:
    """Returns a path without its need of a working directory, which a run must not depend on."""
    # Not resolved: a link may be meant to change. A user that does not exist stays as it is.
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111


def check_plain(value: Any) -> None:
    """Raises a ValueError unless a value is plain and small: texts and numbers, also in lists.

    Args:
        value: The value, as YAML and JSON know it.
    """
    left, n_values = [value], 0
    while left:
        part = left.pop()
        n_values += 1
        if n_values > MOST_PARTS:
            raise ValueError("too many values")
        if isinstance(part, Mapping):
            if not all(isinstance(key, str) for key in part):
                raise ValueError("a key is no text")
            left += [*part, *part.values()][: MOST_PARTS + 1]
        elif isinstance(part, list | tuple):
            left += part[: MOST_PARTS + 1]
        elif isinstance(part, int | float):
            if not abs(part) <= MOST_PLAIN:
                raise ValueError("not finite, or too large")
        elif not (part is None or (isinstance(part, str) and len(part) <= MOST_PARTS)):
            raise ValueError("no plain value")


# Bounds of integers without a meaning of their own, such as those of an optimizer.
MOST_PLAIN = 10**9
# Bound of the values in a serialised object, and of the letters in one of its texts.
MOST_PARTS = 1_000
# Bounds of sizes that a machine can hold.
MOST_STEPS = 1_000
MOST_FILTERS = 2_048
MOST_UNITS = 16_384
MOST_PIXELS = 2_048
MOST_EPISODES = 1_000_000

Text = Annotated[str, Field(max_length=10_000), Expected("text")]
Flag = Annotated[bool, Expected("true or false")]
# The numbers of inner steps, and of those of an LSTM.
Steps = Annotated[int, Between(0, MOST_STEPS)]
OneOrMoreSteps = Annotated[int, Between(1, MOST_STEPS)]
OptionalSteps = Annotated[int | None, Between(0, MOST_STEPS, "an integer {}, or null")]
Iterations = Annotated[int, Between(0, MOST_PLAIN)]
Filters = Annotated[int, Between(1, MOST_FILTERS)]
FiltersOrNone = Annotated[int, Between(0, MOST_FILTERS)]
Epochs = Annotated[int, Between(1, 1_000_000)]
EpochsOrNone = Annotated[int, Between(0, 1_000_000)]
Seed = Annotated[int, Between(0, 2**32 - 1)]
SeedOfDraws = Annotated[int, Between(0, 2**31 - 1)]
Episodes = Annotated[int, Between(1, MOST_EPISODES)]
# A confidence interval needs two.
TestEpisodes = Annotated[int, Between(2, MOST_EPISODES)]
Pixels = Annotated[int, Between(1, MOST_PIXELS)]
OptionalPixels = Annotated[int | None, Between(1, MOST_PIXELS, "an integer {}, or null")]
MetaBatchSize = Annotated[int, Between(1, 100_000)]
OptionalBatchSize = Annotated[int | None, Between(1, 1_000_000, "an integer {}, or null")]
Number = Annotated[float, Field(allow_inf_nan=False), Between(-1_000_000, 1_000_000, "a number {}")]
Decay = Annotated[float, Field(allow_inf_nan=False), Between(0, 0.999_999, "a number {}")]
# Within float32, in which smaller numbers are 0.
PositiveNumber = Annotated[
    float, Field(allow_inf_nan=False), Between(1e-30, 1_000_000, "a number {}")
]
Share = Annotated[float, Field(allow_inf_nan=False), Between(0, 0.999_999, "a number {}")]
Weight = Annotated[float, Field(allow_inf_nan=False), Between(0, 1_000_000, "a number {}")]
OptionalPositiveNumber = Annotated[
    float | None, Field(allow_inf_nan=False), Between(1e-30, 1_000_000, "a number {}, or null")
]
Range = Annotated[
    tuple[
        Annotated[float, Field(strict=True, allow_inf_nan=False)],
        Annotated[float, Field(strict=True, allow_inf_nan=False)],
    ],
    Field(strict=False),
    pydantic.AfterValidator(_check_rising),
    pydantic.BeforeValidator(_check_list),
    Between(-1_000_000, 1_000_000, "a range [low, high] of numbers {}"),
]
Widths = Annotated[
    tuple[Annotated[int, Field(strict=True)], ...],
    Field(strict=False, max_length=100),
    pydantic.BeforeValidator(_check_list),
    Between(1, MOST_UNITS, "a list of at most 100 integers {}"),
]
ImageSize = Annotated[
    tuple[Annotated[int, Field(strict=True)], Annotated[int, Field(strict=True)]] | None,
    Field(strict=False),
    Between(1, MOST_PIXELS, "[height, width] in pixels, {}, or null"),
]
Size = Annotated[
    int | tuple[int, int],
    pydantic.BeforeValidator(_check_order),
    Between(1, 100_000, "an integer {}, or a range [low, high] of such integers"),
]
ExamplesOrNone = Annotated[int, Between(0, 100_000)]
OptionalFraction = Annotated[
    float | None, Field(allow_inf_nan=False), Between(1e-6, 0.999_999, "a number {}, or null")
]
Ways = Annotated[
    int | tuple[int, int],
    pydantic.BeforeValidator(_check_order),
    Between(2, 100_000, "an integer {}, or a range [low, high] of such integers"),
]
FolderPath = Annotated[
    str,
    Field(min_length=1, max_length=4_096),
    pydantic.AfterValidator(absolute),
    Expected("the path of a folder"),
]
OptionalFolderPath = Annotated[
    str | None,
    Field(min_length=1, max_length=4_096),
    pydantic.AfterValidator(lambda path: None if path is None else absolute(path)),
    Expected("the path of a folder, or null"),
]
GroupNames = Annotated[
    tuple[str, ...] | None,
    Field(strict=False),
    pydantic.BeforeValidator(_check_group_names),
    Expected("a list of names of groups, each once, or null"),
]
KerasObject = Annotated[
    str | dict[str, Any],
    pydantic.BeforeValidator(_check_keras),
    Expected("a Keras name or {class_name: …, config: {…}}"),
]
BatchNorm = Annotated[modes.BatchNorm, Expected()]
