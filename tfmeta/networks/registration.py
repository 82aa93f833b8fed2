"""Classes and functions that a file needs and Keras will not find when the file is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import keras

LAMBDA = "a lambda function"


def warn_of_unregistered(model: keras.Model) -> None:
    """Warns if a model's file will load only in a program that registers something first.

    Args:
        model: keras.Model. A model that is about to be saved.
    """
    names = unregistered(model)
    if names:
        warnings.warn(
            f"The file of this {type(model).__name__} loads only where {', '.join(names)} can be "
            "found by name: define named classes and functions, and decorate each with "
            "@keras.saving.register_keras_serializable(), before you save and before you load.",
            stacklevel=3,
        )


def unregistered(model: keras.Model) -> list[str]:
    """Returns the names of the classes and functions of a model that Keras cannot find by name.

    Args:
        model: keras.Model. Any model that has a configuration.
    """
    return sorted(set(_unregistered(model.get_config())))


def _unregistered(config: Any) -> Iterator[str]:
    """Yields the names of all serialised objects in a configuration that Keras cannot find."""
    if isinstance(config, list | tuple):
        for part in config:
            yield from _unregistered(part)
    if not isinstance(config, dict):
        return
    for part in config.values():
        yield from _unregistered(part)
    if config.get("class_name") == "__lambda__" or _is_lambda(config):
        yield LAMBDA
    name = config.get("registered_name")
    is_keras = str(config.get("module")).partition(".")[0] in ("keras", "builtins")
    if name and not is_keras and keras.saving.get_registered_object(name) is None:
        yield str(config["config"] if config.get("class_name") == "function" else name)


def _is_lambda(config: dict[str, Any]) -> bool:
    """Returns whether this is a lambda as Keras serialises one that is an activation."""
    code = config.get("value")
    return config.keys() == {"value"} and isinstance(code, list | tuple) and len(code) == 3
