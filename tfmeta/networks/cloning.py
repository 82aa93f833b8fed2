"""Copies of Keras models within the process, without Keras's serialisation."""

from __future__ import annotations

import functools
import types
from collections import deque
from typing import Any

import keras
import tensorflow as tf

from tfmeta import keras_layers

# Objects of these libraries hold no layers, or are too large to look into.
_OPAQUE = ("tensorflow.", "numpy.", "threading.", "inspect.")
_STATELESS = (type, types.ModuleType, type(None), str, bytes, int, float, keras.KerasTensor)


class NotCopyableError(ValueError):
    """Raised if a model cannot be copied."""


def clone(model: keras.Model) -> keras.Model:
    """Makes a copy of a model with variables of its own, not compiled.

    Layers, variables and the containers, methods and functions that hold them are copied, each
    once, so that what was shared is shared in the copy. All else (functions, regularisers,
    initialisers, lookup tables …) is used by both. So nothing needs to be registered, or to have a
    `get_config`, as it must to be saved in a file.

    Args:
        model: keras.Model. Any model: functional, sequential or subclassed, also a learner.

    Returns:
        The copy, of the same class. Its variables have the order and the values of the model's.

    Raises:
        NotCopyableError: If a layer keeps what cannot be copied.
    """
    copies = _Copies()
    try:
        copy = copies.of(model)
        copies.connect()
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise NotCopyableError(
            f"tfmeta cannot copy {model.name!r}, because of what one of its layers keeps: {error}"
        ) from error
    pairs = zip(model.variables, copy.variables, strict=True)
    if not all(copies.of(old) is new for old, new in pairs):
        raise NotCopyableError(
            f"tfmeta cannot copy {model.name!r}: its variables would be in another order."
        )
    return copy


class _Copies:
    """The copies that one call of `clone` has made, by the `id` of the original."""

    def __init__(self) -> None:
        self._copies: dict[int, Any] = {}
        self._originals: list[Any] = []  # An `id` is unique only as long as its object lives.
        self._functions: list[Any] = []  # Keras functions, of which the graphs are still to make.
        self._stateless: dict[int, Any] = {}  # Values that hold no state, by their `id`.

    def of(self, value: Any) -> Any:
        """Returns the copy of a value that holds layers or variables; else the value itself."""
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, keras.Variable):
            return self._remember(value, keras_layers.copy_variable(value))
        if isinstance(value, keras.layers.InputLayer):
            return self._remember(value, type(value).from_config(value.get_config()))
        if isinstance(value, keras.Operation):
            copy = self._remember(value, keras_layers.blank_operation(value))
            self._fill(copy, keras_layers.state_to_copy(value))
            if isinstance(value, keras.Function):
                self._functions.append(value)
            return copy
        return self._of_other(value) if _holds_state(value, self._stateless) else value

    def connect(self) -> None:
        """Makes the graphs of all copied functional models, inner ones first."""
        for function in self._functions:
            keras_layers.connect_function(self.of(function), function, self.of)

    def _of_other(self, value: Any) -> Any:
        if isinstance(value, dict):
            copy = self._remember(value, _empty(value))
            items = {self.of(k): self.of(v) for k, v in value.items()}
            dict.update(copy, items)
        elif isinstance(value, list):
            copy = self._remember(value, _empty(value))
            list.extend(copy, map(self.of, value))
        elif isinstance(value, set):
            copy = self._remember(value, _empty(value))
            set.update(copy, map(self.of, value))
        elif isinstance(value, deque):
            return self._remember(value, deque(map(self.of, value), value.maxlen))
        elif isinstance(value, tuple):
            copy = tuple.__new__(type(value), map(self.of, value))
            return self._remember(value, copy)
        elif isinstance(value, types.MethodType):
            copy = types.MethodType(self.of(value.__func__), self.of(value.__self__))
            return self._remember(value, copy)
        elif isinstance(value, types.FunctionType):
            return self._of_function(value)
        elif isinstance(value, functools.partial):
            keywords = {k: self.of(v) for k, v in value.keywords.items()}
            copy = functools.partial(self.of(value.func), *map(self.of, value.args), **keywords)
            return self._remember(value, copy)
        elif isinstance(value, tf.types.experimental.PolymorphicFunction):
            function = self.of(value.python_function)
            return self._remember(value, keras_layers.with_python_function(value, function))
        else:
            copy = self._remember(value, object.__new__(type(value)))
        if hasattr(value, "__dict__"):
            self._fill(copy, vars(value))
        keras_layers.renew_ids(copy)
        return copy

    def _of_function(self, function: types.FunctionType) -> types.FunctionType:
        """Copies a function whose closure or defaults hold layers or variables."""
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        copy = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, closure=cells or None
        )
        self._remember(function, copy)
        for cell, original in zip(cells, function.__closure__ or (), strict=True):
            if _contents(original) is not _NOTHING:
                cell.cell_contents = self.of(original.cell_contents)
        copy.__defaults__ = self.of(function.__defaults__)
        copy.__kwdefaults__ = self.of(function.__kwdefaults__)
        self._fill(copy, vars(function))
        return copy

    def _fill(self, copy: Any, state: dict[str, Any]) -> None:
        # Not by setattr: a layer that is built lets nobody add variables and layers.
        vars(copy).update({name: self.of(value) for name, value in state.items()})

    def _remember(self, original: Any, copy: Any) -> Any:
        self._copies[id(original)] = copy
        self._originals.append(original)
        return copy


_NOTHING = object()


def _contents(cell: types.CellType) -> Any:
    """Returns what a closure's cell holds; `_NOTHING` before its variable is assigned."""
    try:
        return cell.cell_contents
    except ValueError:
        return _NOTHING


def _empty(container: Any) -> Any:
    """Makes an empty container of the same kind."""
    if hasattr(container, "default_factory"):
        return type(container)(container.default_factory)
    kind: Any = type(container)
    return kind.__new__(kind)


def _holds_state(value: Any, stateless: dict[int, Any]) -> bool:
    """Returns whether a layer or variable can be reached from a value, other than by modules.

    Args:
        value: The value.
        stateless: dict. Values by their `id`, from which none can be reached. Those that are found
            are added, so that no value is looked into again.
    """
    waiting: list[Any] = [value]
    seen: dict[int, Any] = {}
    while waiting:
        value = waiting.pop()
        if isinstance(value, keras.Operation | keras.Variable):
            return True
        if id(value) in seen or id(value) in stateless or not _can_hold_state(value):
            continue
        seen[id(value)] = value
        waiting.extend(_parts(value))
    stateless.update(seen)
    return False


def _can_hold_state(value: Any) -> bool:
    if isinstance(value, _STATELESS):
        return False
    if isinstance(value, tf.types.experimental.PolymorphicFunction):
        return True
    return not f"{type(value).__module__}.".startswith(_OPAQUE)


def _parts(value: Any) -> list[Any]:
    """Returns the objects that a value refers to."""
    parts: list[Any] = []
    if isinstance(value, tf.types.experimental.PolymorphicFunction):
        return [value.python_function]
    if isinstance(value, dict):
        parts += [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset | deque):
        parts += value
    elif isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    elif isinstance(value, types.FunctionType):
        parts += [value.__defaults__, value.__kwdefaults__]
        parts += map(_contents, value.__closure__ or ())
    elif isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return [*parts, *getattr(value, "__dict__", {}).values()]
