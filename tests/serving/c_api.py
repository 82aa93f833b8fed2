"""TensorFlow's C API, from the pip wheel for Linux: load a SavedModel and run its signatures.

`tensorflow_model_server` loads and runs a SavedModel with the same C++ code, so that what works
here, in a process that never imports TensorFlow's Python, needs nothing that Python brings. What
is checked before a run, and with which error codes, follows the server's `predict_util.cc`.
"""

import ctypes
import functools
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tensorboard.compat.proto import meta_graph_pb2, types_pb2
from tensorboard.compat.tensorflow_stub import dtypes

# What the loader runs once stands among the signatures; it returns nothing.
_INITIALIZER = "__saved_model_init_op"

INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION = 3, 5, 9


class TensorFlowError(Exception):
    """A status that is not OK: its code, which gRPC shares, and its message."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidArgument(TensorFlowError):
    """The caller's inputs are at fault."""

    def __init__(self, message: str, code: int = INVALID_ARGUMENT) -> None:
        super().__init__(message, code)


class TensorInfo(NamedTuple):
    """An input or output of a signature; an unknown dimension, or shape, is None."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None


class Signature(NamedTuple):
    """What a signature takes and returns, by key. Defaults of inputs are not looked at."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


class SavedModel:
    """A SavedModel, loaded for as long as the process lives. `run` may be called from any thread.

    Args:
        folder: The folder that has `saved_model.pb`.

    Raises:
        TensorFlowError: It does not load.
    """

    def __init__(self, folder: str | Path) -> None:
        api = _library()
        self._graph = api.TF_NewGraph()
        with ExitStack() as stack:
            options = api.TF_NewSessionOptions()
            stack.callback(api.TF_DeleteSessionOptions, options)
            definition = api.TF_NewBuffer()
            stack.callback(api.TF_DeleteBuffer, definition)
            status = stack.enter_context(_checked_status())
            self._session = api.TF_LoadSessionFromSavedModel(
                options,
                None,
                os.fsencode(folder),
                (c_char_p * 1)(b"serve"),
                1,
                self._graph,
                definition,
                status,
            )
            buffer = definition.contents
            serialized = ctypes.string_at(buffer.data, buffer.length)
        meta_graph = meta_graph_pb2.MetaGraphDef.FromString(serialized)
        self.signatures = {
            name: Signature(
                inputs={key: _tensor_info(info) for key, info in signature.inputs.items()},
                outputs={key: _tensor_info(info) for key, info in signature.outputs.items()},
            )
            for name, signature in meta_graph.signature_def.items()
            if name != _INITIALIZER
        }

    def run(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """The outputs of a signature.

        Args:
            signature: Its name.
            inputs: An array per input; strings are object arrays of bytes.
            output_filter: The outputs to compute; all of them where it is empty.

        Raises:
            InvalidArgument: The inputs do not fit the signature, or an operation refused them.
            TensorFlowError: There is no such signature, or another failure.
        """
        api = _library()
        if signature not in self.signatures:
            raise TensorFlowError(
                f'Serving signature key "{signature}" not found.', FAILED_PRECONDITION
            )
        wanted = self.signatures[signature]
        values = {key: np.asarray(value) for key, value in inputs.items()}
        _check_keys(wanted, values)
        keys = list(output_filter) or list(wanted.outputs)
        if unknown := set(keys) - set(wanted.outputs):
            raise InvalidArgument(
                f"output tensor alias not found in signature: {_listed(unknown)} "
                f"Outputs expected to be in the set {_listed(wanted.outputs)}."
            )
        feeds = self._places(wanted.inputs[key] for key in values)
        fetches = self._places(wanted.outputs[key] for key in keys)
        results = (c_void_p * len(fetches))()
        with ExitStack() as stack:
            tensors = [stack.enter_context(_tensor(value)) for value in values.values()]
            fed = (c_void_p * len(tensors))(*tensors)
            with _checked_status() as status:
                api.TF_SessionRun(
                    self._session,
                    None,
                    *(feeds, fed, len(feeds)),
                    *(fetches, results, len(fetches)),
                    *(None, 0),
                    None,
                    status,
                )
            try:
                return {key: _array(result) for key, result in zip(keys, results, strict=True)}
            finally:
                for result in results:
                    api.TF_DeleteTensor(result)

    def _places(self, tensors: Iterable[TensorInfo]) -> "ctypes.Array[_Place]":
        """Where the tensors, of names such as `x:0`, are in the graph."""
        places = []
        for tensor in tensors:
            operation, _, index = tensor.name.rpartition(":")
            pointer = _library().TF_GraphOperationByName(self._graph, operation.encode())
            if pointer is None:
                raise TensorFlowError(f"{tensor.name} is not in the graph.", NOT_FOUND)
            places.append(_Place(pointer, int(index)))
        return (_Place * len(places))(*places)


# === What the server checks before a run; the runtime checks data types ===


def _check_keys(signature: Signature, inputs: Mapping[str, np.ndarray]) -> None:
    missing = signature.inputs.keys() - inputs.keys()
    extra = inputs.keys() - signature.inputs.keys()
    if missing or extra:
        raise InvalidArgument(
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} "
            f"len({_listed(inputs)}) != len({_listed(signature.inputs)}). "
            f"Sent extra: {_listed(extra)}. Missing but required: {_listed(missing)}."
        )


def _listed(keys: Iterable[str]) -> str:
    return "{" + ",".join(sorted(keys)) + "}"


# === The library ===


class _Buffer(ctypes.Structure):
    """TF_Buffer"""

    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


class _Place(ctypes.Structure):
    """TF_Output"""

    _fields_ = (("operation", c_void_p), ("index", c_int))


# Result and arguments of each function. Every pointer to what only the library looks into is void.
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    # tensorflow::DisableXlaCompilation()
    "_ZN10tensorflow21DisableXlaCompilationEv": (None, []),
    "TF_NewStatus": (c_void_p, []),
    "TF_DeleteStatus": (None, [c_void_p]),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_NewBuffer": (POINTER(_Buffer), []),
    "TF_DeleteBuffer": (None, [POINTER(_Buffer)]),
    "TF_NewGraph": (c_void_p, []),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_DeleteSessionOptions": (None, [c_void_p]),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [
            *(c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int),
            *(c_void_p, POINTER(_Buffer), c_void_p),
        ],
    ),
    "TF_SessionRun": (
        None,
        [
            *(c_void_p, c_void_p),
            *(POINTER(_Place), POINTER(c_void_p), c_int),
            *(POINTER(_Place), POINTER(c_void_p), c_int),
            *(POINTER(c_void_p), c_int, c_void_p, c_void_p),
        ],
    ),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_StringInit": (None, [c_void_p]),
    "TF_StringCopy": (None, [c_void_p, c_char_p, c_size_t]),
    "TF_StringGetDataPointer": (c_void_p, [c_void_p]),
    "TF_StringGetSize": (c_size_t, [c_void_p]),
}


def _library() -> ctypes.CDLL:
    """TensorFlow's functions, in a process without its Python."""
    if "tensorflow" in sys.modules:
        raise RuntimeError(
            "TensorFlow was imported: what runs here would prove nothing about a server. Use a "
            "process that does not import it."
        )
    return _loaded_library()


@functools.cache
def _loaded_library() -> ctypes.CDLL:
    # To find a top-level package is not to import it.
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The wheel of TensorFlow has the libraries; it is not installed.")
    for name in ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2"):
        ctypes.CDLL(str(Path(spec.submodule_search_locations[0], name)), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(None)
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    # The server's default.
    library._ZN10tensorflow21DisableXlaCompilationEv()
    return library


@contextmanager
def _checked_status() -> Iterator[int]:
    """A TF_Status to call with; what it says then is raised."""
    api = _library()
    status = api.TF_NewStatus()
    try:
        yield status
        if code := api.TF_GetCode(status):
            kind = InvalidArgument if code == INVALID_ARGUMENT else TensorFlowError
            raise kind(api.TF_Message(status).decode(errors="replace"), code)
    finally:
        api.TF_DeleteStatus(status)


# === Tensors ===

# sizeof(TF_TString)
_STRING_SIZE = 24


def _tensor_info(info: meta_graph_pb2.TensorInfo) -> TensorInfo:
    shape = info.tensor_shape
    return TensorInfo(
        info.name,
        np.dtype(dtypes.as_dtype(info.dtype).as_numpy_dtype),
        None if shape.unknown_rank else tuple(d.size if d.size >= 0 else None for d in shape.dim),
    )


@contextmanager
def _tensor(array: np.ndarray) -> Iterator[int]:
    """A TF_Tensor that holds a copy of the array."""
    api = _library()
    code = dtypes.as_dtype(array.dtype).as_datatype_enum
    of_strings = code == types_pb2.DT_STRING
    size = array.size * _STRING_SIZE if of_strings else array.nbytes
    shape = (c_int64 * array.ndim)(*array.shape)
    tensor = api.TF_AllocateTensor(code, shape, array.ndim, size)
    try:
        if of_strings:
            for string in _strings(tensor):
                api.TF_StringInit(string)
            for string, value in zip(_strings(tensor), array.astype(object).flat, strict=True):
                api.TF_StringCopy(string, value, len(value))
        else:
            ctypes.memmove(api.TF_TensorData(tensor), array.tobytes(), size)
        yield tensor
    finally:
        # With its strings.
        api.TF_DeleteTensor(tensor)


def _array(tensor: int) -> np.ndarray:
    """A copy of what a TF_Tensor holds."""
    api = _library()
    shape = [api.TF_Dim(tensor, i) for i in range(api.TF_NumDims(tensor))]
    if api.TF_TensorType(tensor) == types_pb2.DT_STRING:
        values = np.empty(shape, object)
        values.flat = [
            ctypes.string_at(api.TF_StringGetDataPointer(s), api.TF_StringGetSize(s))
            for s in _strings(tensor)
        ]
        return values
    dtype = dtypes.as_dtype(api.TF_TensorType(tensor)).as_numpy_dtype
    content = ctypes.string_at(api.TF_TensorData(tensor), api.TF_TensorByteSize(tensor))
    return np.frombuffer(content, dtype).reshape(shape)


def _strings(tensor: int) -> range:
    """The addresses of a tensor's strings."""
    start = _library().TF_TensorData(tensor) or 0
    return range(start, start + _library().TF_TensorByteSize(tensor), _STRING_SIZE)
