"""Base class of a recipe's sections, and the types of its values, with messages for each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError, ValidationError, core_schema

from tfmeta.registry import hint


def refusal(message: str) -> PydanticCustomError:
    """Makes the error that a validator raises, with a message that is shown as it is."""
    return PydanticCustomError("refused", "{message}", {"message": message})


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
            raise refusal(f"must be a mapping; got {given!r}.")
        for key in given:
            if key not in cls.model_fields:
                raise refusal(f"unknown key {key!r}; {hint(key, cls.model_fields)}")
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
    """Says in an error, and in the documentation, which values an option takes.

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

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        text = self.of(source)
        choices = get_args(source) if get_origin(source) is Literal else ()

        def validate(value: Any, validate_type: Any) -> Any:
            try:
                return validate_type(value)
            except ValidationError as error:
                advice = hint(value, choices) if isinstance(value, str) and choices else ""
                advice = f"; {advice}" if advice.startswith("did you mean") else "."
                raise refusal(f"must be {text}; got {value!r}{advice}") from error

        return core_schema.no_info_wrap_validator_function(validate, handler(source))


def name_of(value: Any) -> str:
    """Returns the `name` in a section; raises an error if it is missing or not text."""
    if isinstance(value, Named):
        return value.name
    if not isinstance(value, Mapping):
        raise refusal(f"must be a mapping; got {value!r}.")
    if "name" not in value:
        raise refusal("missing ['name'].")
    if not isinstance(value["name"], str):
        raise refusal(f"name must be text; got {value['name']!r}.")
    return str(value["name"])


def known_name(names: Collection[str]) -> pydantic.BeforeValidator:
    """Returns a validator that refuses a section whose `name` is not among the names."""

    def check(value: Any) -> Any:
        if (name := name_of(value)) not in names:
            raise refusal(f"unknown name {name!r}; {hint(name, names)}")
        return value

    return pydantic.BeforeValidator(check)


# === Types of values ===


def _size(minimum: int) -> pydantic.BeforeValidator:
    """Returns a validator of an integer, or a range [low, high] of integers."""

    def check(value: Any) -> int | tuple[int, int]:
        bounds = tuple(value) if isinstance(value, list | tuple) else (value, value)
        if len(bounds) != 2 or any(type(bound) is not int for bound in bounds):
            raise ValueError("not an integer or two")
        if not minimum <= bounds[0] <= bounds[1]:
            raise ValueError("out of bounds")
        return value if isinstance(value, int) else (bounds[0], bounds[1])

    return pydantic.BeforeValidator(check)


def _check_keras(value: Any) -> Any:
    if not isinstance(value, str) and not (isinstance(value, Mapping) and "class_name" in value):
        raise ValueError("not a name or a serialised object")
    return value


Text = Annotated[str, Expected("text")]
Flag = Annotated[bool, Expected("true or false")]
Natural = Annotated[int, Field(ge=0), Expected("an integer ≥ 0")]
Positive = Annotated[int, Field(ge=1), Expected("an integer > 0")]
TwoOrMore = Annotated[int, Field(ge=2), Expected("an integer ≥ 2")]
OptionalNatural = Annotated[Annotated[int, Field(ge=0)] | None, Expected("an integer ≥ 0, or null")]
OptionalPositive = Annotated[
    Annotated[int, Field(ge=1)] | None, Expected("an integer > 0, or null")
]
Number = Annotated[float, Field(allow_inf_nan=False), Expected("a number")]
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False), Expected("a number > 0")]
Range = Annotated[
    tuple[float, float], Field(strict=False), Expected("a range [low, high] of numbers")
]
Widths = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    Field(strict=False),
    Expected("a list of integers > 0"),
]
ImageSize = Annotated[
    tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None,
    Field(strict=False),
    Expected("[height, width] in pixels, or null"),
]
Size = Annotated[
    int | tuple[int, int],
    _size(1),
    Expected("an integer > 0, or a range [low, high] of such integers"),
]
Ways = Annotated[
    int | tuple[int, int],
    _size(2),
    Expected("an integer ≥ 2, or a range [low, high] of such integers"),
]
KerasObject = Annotated[
    str | dict[str, Any],
    pydantic.BeforeValidator(_check_keras),
    Expected("a Keras name or {class_name: …, config: {…}}"),
]
BatchNorm = Annotated[Literal["transductive", "support", "running"], Expected()]
