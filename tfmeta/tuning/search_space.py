"""The space of configurations, and their encoding as points of a unit cube."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Range(NamedTuple):
    """All numbers from `low` to `high`.

    Attributes:
        low: float. The least.
        high: float. The greatest.
        log: bool. Whether ratios count, not differences. Defaults to False.
        integer: bool. Whether the numbers are integers. Defaults to False.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False


class SearchSpace:
    """The hyper-parameters to choose, and their allowed values.

    A configuration is a dictionary with a value for each name. It is encoded as a point of
    `[0, 1]^d`: a number of a range by its position, which is that of its logarithm if `log`; a
    number of a list by its position in the list; a text or a truth value as a one-hot vector.

    Args:
        parameters: dict. By name, a `Range` or a list of allowed values.

    Raises:
        ValueError: If a range is empty, or a list has no values or one twice.

    Example:

    >>> space = SearchSpace({
    ...     "learning_rate": Range(0.001, 0.1, log=True), "width": [16, 64, 256],
    ...     "activation": ["relu", "tanh"]})
    >>> points = space.encode([{"learning_rate": 0.01, "width": 64, "activation": "tanh"}])
    >>> points.round(3)
    array([[0.5, 0.5, 0. , 1. ]])
    >>> space.decode(points)
    [{'learning_rate': 0.01, 'width': 64, 'activation': 'tanh'}]
    """

    def __init__(self, parameters: Mapping[str, Range | Sequence[Any]]) -> None:
        if not parameters:
            raise ValueError("A search space needs at least one hyper-parameter; got none.")
        self.parameters: dict[str, Range | list[Any]] = {
            name: allowed if isinstance(allowed, Range) else list(allowed)
            for name, allowed in parameters.items()
        }
        for name, allowed in self.parameters.items():
            _check(name, allowed)

    @property
    def n_inputs(self) -> int:
        """The number of coordinates of a point, d."""
        return sum(_n_coordinates(allowed) for allowed in self.parameters.values())

    def get_config(self) -> dict[str, Any]:
        """Returns the space as plain values, for JSON."""
        return {
            "parameters": {
                name: {"range": list(allowed)} if isinstance(allowed, Range) else list(allowed)
                for name, allowed in self.parameters.items()
            }
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SearchSpace:
        """Makes a space of what `get_config` returned.

        Args:
            config: dict. The plain values.
        """
        return cls(
            {
                name: Range(*allowed["range"]) if isinstance(allowed, Mapping) else allowed
                for name, allowed in config["parameters"].items()
            }
        )

    def encode(self, configurations: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Encodes configurations as points.

        Args:
            configurations: sequence of dict, `[N]`. A value for each name.

        Returns:
            float64 `[N, d]`.

        Raises:
            ValueError: If a configuration has other names, or a value that is not allowed.
        """
        points = np.empty((len(configurations), self.n_inputs))
        for point, configuration in zip(points, configurations, strict=True):
            if configuration.keys() != self.parameters.keys():
                raise ValueError(
                    f"A configuration of this space has the names {', '.join(self.parameters)}; "
                    f"got {', '.join(map(str, configuration)) or 'none'}."
                )
            parts = [_encoded(n, allowed, configuration[n]) for n, allowed in self._items()]
            point[:] = np.concatenate(parts)
        return points

    def decode(self, points: np.ndarray) -> list[dict[str, Any]]:
        """Decodes points; each value is the nearest that is allowed.

        Args:
            points: array `[N, d]`.

        Returns:
            list of dict, `[N]`.
        """
        configurations = []
        for point in np.clip(np.asarray(points, float), 0, 1):
            values, start = {}, 0
            for name, allowed in self._items():
                end = start + _n_coordinates(allowed)
                values[name] = _decoded(allowed, point[start:end])
                start = end
            configurations.append(values)
        return configurations

    def sample(self, n: int, generator: np.random.Generator) -> list[dict[str, Any]]:
        """Draws configurations at random, each coordinate uniformly.

        Args:
            n: int. How many.
            generator: numpy.random.Generator. The source of randomness.
        """
        return self.decode(generator.uniform(size=(n, self.n_inputs)))

    def grid(self) -> list[dict[str, Any]]:
        """Returns all configurations of a space of lists; the last list runs fastest.

        Raises:
            ValueError: If the space has a range.
        """
        for name, allowed in self._items():
            if isinstance(allowed, Range):
                raise ValueError(f"Only a space of lists has a grid, but {name} has a range.")
        rows = itertools.product(*self.parameters.values())
        return [dict(zip(self.parameters, row, strict=True)) for row in rows]

    def _items(self) -> Any:
        return self.parameters.items()


def _check(name: str, allowed: Range | list[Any]) -> None:
    if isinstance(allowed, Range):
        least = 0.0 if allowed.log else -math.inf
        if not least < allowed.low < allowed.high < math.inf:
            above = "0 < " if allowed.log else ""
            raise ValueError(
                f"{name}: a range needs {above}low < high; got {allowed.low!r} and "
                f"{allowed.high!r}."
            )
    elif not allowed or len(set(map(repr, allowed))) < len(allowed):
        raise ValueError(f"{name} needs a list of different values; got {allowed!r}.")


def _is_ordered(allowed: list[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in allowed)


def _n_coordinates(allowed: Range | list[Any]) -> int:
    return 1 if isinstance(allowed, Range) or _is_ordered(allowed) else len(allowed)


def _encoded(name: str, allowed: Range | list[Any], value: Any) -> np.ndarray:
    if isinstance(allowed, Range):
        slack = 1e-9 * (allowed.high - allowed.low)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not allowed.low - slack <= value <= allowed.high + slack:
            raise ValueError(
                f"{name} must be a number from {allowed.low} to {allowed.high}; got {value!r}."
            )
        low, high, at = _position(allowed, [*_ends(allowed), value])
        return np.clip([(at - low) / (high - low)], 0, 1)
    matches = [i for i, other in enumerate(allowed) if _same(other, value)]
    if not matches:
        raise ValueError(f"{name} must be one of {allowed!r}; got {value!r}.")
    if _is_ordered(allowed):
        order = sorted(allowed)
        return np.array([order.index(allowed[matches[0]]) / max(1, len(allowed) - 1)])
    return np.eye(len(allowed))[matches[0]]


def _decoded(allowed: Range | list[Any], part: np.ndarray) -> Any:
    if not isinstance(allowed, Range):
        if not _is_ordered(allowed):
            return allowed[int(part.argmax())]
        return sorted(allowed)[round(float(part[0]) * (len(allowed) - 1))]
    low, high = _position(allowed, _ends(allowed))
    value = low + float(part[0]) * (high - low)
    value = math.exp(value) if allowed.log else value
    if allowed.integer:
        return int(min(max(round(value), math.ceil(allowed.low)), math.floor(allowed.high)))
    # Twelve digits, so that 0.01 does not become 0.010000000000000002.
    return min(max(float(f"{value:.12g}"), allowed.low), allowed.high)


def _ends(allowed: Range) -> list[float]:
    """Returns the ends of a range; an integer's are half beyond, to give each equal room."""
    if not allowed.integer:
        return [allowed.low, allowed.high]
    return [allowed.low - 0.5, allowed.high + 0.5]


def _position(allowed: Range, values: Sequence[float]) -> list[float]:
    return [math.log(v) for v in values] if allowed.log else [float(v) for v in values]


def _same(a: Any, b: Any) -> bool:
    if _is_ordered([a, b]):
        return math.isclose(a, b, rel_tol=1e-9)
    return type(a) is type(b) and bool(a == b)
