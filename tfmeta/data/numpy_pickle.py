"""Reads arrays from a pickle of NumPy, without running code of the file.

NumPy's own unpickling trusts what it reads. Here arrays and their types are stand-ins, which are
checked before an array is made of them.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

# The kinds of numbers and texts that are read; "O" is an array of Python's texts.
DTYPES = re.compile(r"[fiuSU]\d+|O8?")


class _DType:
    """A type of numbers or texts."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name.decode("ascii") if isinstance(name, bytes) else name
        if not isinstance(self.name, str) or not DTYPES.fullmatch(self.name):
            raise ValueError(f"it holds an array of {name!r}.")
        self.order: Any = "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def make(self) -> np.dtype:
        return np.dtype(self.name).newbyteorder(self.order)


class _Array:
    """An array: its shape, its type and its content."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def make(self) -> np.ndarray:
        _, shape, kind, is_fortran, content = self.state
        if not isinstance(kind, _DType) or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError("it holds an array of another kind.")
        size = math.prod(shape)
        if kind.name.startswith("O"):
            if not isinstance(content, list) or not all(isinstance(v, str) for v in content):
                raise ValueError("it holds an array of other things than numbers and texts.")
            array = np.array(content, str)
        else:
            # Python 2 wrote bytes as texts.
            content = content.encode("latin1") if isinstance(content, str) else content
            array = np.frombuffer(content, kind.make())
        if array.size != size:
            raise ValueError(f"an array of the shape {tuple(shape)} has {array.size} values.")
        return array.reshape(shape, order="F" if is_fortran else "C")


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"it holds bytes as {encoding!r}.")
    return text.encode("latin1")


# All that such a pickle may name; anything else could run code.
ALLOWED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise ValueError(f"it names {module}.{name}, which no pickle of plain arrays does.")
        return ALLOWED[module, name]


def read_numpy_pickle(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a mapping from names to arrays of numbers or texts.

    No code of the file is run. Pickles of Python 2 are read, too.

    Args:
        file: str or path. A pickle of protocol 0 to 4.

    Returns:
        dict. The arrays by their names. Texts in bytes are decoded as Latin-1.

    Raises:
        ValueError: If the file is broken, or holds anything else.
        OSError: If it cannot be read.

    Example:

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "arrays.pkl")
    >>> _ = file.write_bytes(pickle.dumps({"x": np.arange(3.0)}, 2))
    >>> read_numpy_pickle(file)
    {'x': array([0., 1., 2.])}
    """
    path = Path(file)
    with path.open("rb") as opened:
        try:
            content = _Unpickler(opened, encoding="latin1").load()
            if not isinstance(content, dict):
                raise ValueError(f"it holds a {type(content).__name__}, not a dictionary.")
            return {_name(name): _array(value) for name, value in content.items()}
        except (OSError, MemoryError):
            raise
        # A broken pickle can raise errors of almost any type.
        except Exception as error:
            raise ValueError(
                f"{path} must be a pickle of a dictionary of NumPy arrays, but "
                f"{error or type(error).__name__}"
            ) from error


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise ValueError(f"its keys are {type(name).__name__}, not text.")
    return name


def _array(value: Any) -> np.ndarray:
    if not isinstance(value, _Array):
        raise ValueError(f"it holds a {type(value).__name__} besides arrays.")
    array = value.make()
    return np.char.decode(array, "latin1") if array.dtype.kind == "S" else array
