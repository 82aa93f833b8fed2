"""Reads tensors from a file of PyTorch's old format, without PyTorch and without running code.

A file of `torch.save` before PyTorch 1.6 is a sequence of pickles: a magic number, the protocol, a
description of the machine, the tensors (which only say where their numbers are), and the list of
storages. The numbers of each storage follow, each with its count before it.
"""

from __future__ import annotations

import collections
import math
import os
import pickle
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
# All that a pickle in such a file may name; anything else could run code.
ALLOWED = {
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: _Tensor(*arguments[:4]),
}


class _Storage(NamedTuple):
    """The numbers that tensors share, still in the file."""

    dtype: np.dtype
    key: str
    size: int


class _Tensor(NamedTuple):
    """A view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise ValueError(f"it names {module}.{name}, which no file of plain tensors does.")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise ValueError("it has storages of another kind than plain tensors have.")
        return _Storage(dtype, key, size)


def read_torch_file(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a mapping from names to tensors, a `state_dict`.

    Only float32 and int64 tensors in an `OrderedDict` are read. No code of the file is run.

    Args:
        file: str or path. A file that PyTorch saved in its old format.

    Returns:
        dict. The tensors by their names, in the order of the file.

    Raises:
        ValueError: If the file is broken, is of another format, or holds anything else.
        OSError: If it cannot be read.
    """
    path = Path(file)
    with path.open("rb") as opened:
        try:
            return _read(opened)
        except OSError:
            raise
        # A broken pickle can raise errors of almost any type.
        except Exception as error:
            raise ValueError(
                f"{path} must be a file of tensors in PyTorch's old format, but "
                f"{error or type(error).__name__}"
            ) from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    if (_Unpickler(file).load(), _Unpickler(file).load()) != (MAGIC, PROTOCOL):
        raise ValueError("it begins otherwise.")
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("it was written on a big-endian machine.")
    tensors = _Unpickler(file).load()
    if not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise ValueError("it holds other things than tensors.")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    keys = _Unpickler(file).load()
    if {*keys} != storages.keys():
        raise ValueError("its storages are not those of its tensors.")
    numbers = {key: _numbers(file, storages[key]) for key in keys}
    return {name: _view(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _numbers(file: BinaryIO, storage: _Storage) -> np.ndarray:
    size = int.from_bytes(file.read(8), "little")
    content = file.read(storage.size * storage.dtype.itemsize)
    if size != storage.size or len(content) != storage.size * storage.dtype.itemsize:
        raise ValueError("it is cut short.")
    return np.frombuffer(content, storage.dtype)


def _view(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((n - 1) * stride for n, stride in steps)
    is_negative = min((tensor.offset, *tensor.shape, *tensor.strides)) < 0
    if is_negative or last >= len(numbers) or math.prod(tensor.shape) > len(numbers):
        raise ValueError("a tensor lies outside of its numbers.")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    return np.ascontiguousarray(view).reshape(tensor.shape)
