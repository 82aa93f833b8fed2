"""`PredictionService.Predict` of TensorFlow Serving over the C API, in a process of its own.

    python prediction_service.py NAME [--port 0] [--threads 4]

serves the highest integer version in the folder NAME under that name, and prints the port once it
is ready. It stands in for `tensorflow_model_server`: it speaks that protocol over the same C++
loader and runtime. Checks of the request and the replay of the warmup are written after the
server's source. It has no REST, no batching and no other method, and looks for versions only once.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from c_api import NOT_FOUND, InvalidArgument, SavedModel, TensorFlowError
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2
from tensorboard.compat.proto import tensor_pb2
from tensorboard.compat.tensorflow_stub import dtypes
from tensorboard.compat.tensorflow_stub.errors import OutOfRangeError
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.util.tensor_util import make_ndarray

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_WARMUP_RECORDS = 1000
MAX_MESSAGE_BYTES = 64 * 2**20
MESSAGE_LIMITS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]

# === The messages ===

# The modules of `tensorflow-serving-api` import TensorFlow, so that the messages, as far as they
# are used, are described here. Only numbers and types count: names are not sent, and a map is sent
# as repeated pairs of a key and a value.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "google.protobuf.Int64Value"),
        "signature_name": (3, "string"),
    },
    "NamedTensor": {"key": (1, "string"), "value": (2, "tensorboard.TensorProto")},
    "PredictRequest": {
        "model_spec": (1, "stand_in.ModelSpec"),
        "inputs": (2, "repeated stand_in.NamedTensor"),
        "output_filter": (3, "repeated string"),
    },
    "PredictResponse": {
        "outputs": (1, "repeated stand_in.NamedTensor"),
        "model_spec": (2, "stand_in.ModelSpec"),
    },
    "PredictLog": {"request": (1, "stand_in.PredictRequest")},
    "PredictionLog": {"predict_log": (6, "stand_in.PredictLog")},
}


def _message_classes() -> dict[str, Any]:
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="stand_in.proto",
        package="stand_in",
        syntax="proto3",
        dependency=[tensor_pb2.DESCRIPTOR.name, wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            *repeated, kind = kind.split()
            field = message.field.add(name=field_name, number=number)
            field.label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            if kind == "string":
                field.type = field_type.TYPE_STRING
            else:
                field.type = field_type.TYPE_MESSAGE
                field.type_name = f".{kind}"
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClassesForFiles([file.name], pool)


_CLASSES = _message_classes()
PredictRequest = _CLASSES["stand_in.PredictRequest"]
PredictResponse = _CLASSES["stand_in.PredictResponse"]
PredictionLog = _CLASSES["stand_in.PredictionLog"]

# The field of TensorProto that the server sends values of a data type in.
_VALUE_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "object": "string_val",
}


def _tensor_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=dtypes.as_dtype(array.dtype).as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, _VALUE_FIELDS[array.dtype.name]).extend(array.ravel().tolist())
    return proto


# === The server ===


class PredictionService:
    """The latest version of a model.

    Args:
        folder: `NAME`, with a SavedModel in each integer version.

    Raises:
        FileNotFoundError: It has no integer version.
        TensorFlowError: The version does not load, or refuses a record of its warmup.
    """

    def __init__(self, folder: Path) -> None:
        versions = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        if not versions:
            raise FileNotFoundError(f"{folder} has no integer version.")
        self.name = folder.name
        self.version = max(versions)
        self._model = SavedModel(folder / str(self.version))
        for request in _warmup_requests(folder / str(self.version) / WARMUP_FILE):
            self._run(request)

    def predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer a request, or end it with the status of what was wrong."""
        try:
            self._check_model(request)
            return self._run(request)
        except TensorFlowError as error:
            codes = {code.value[0]: code for code in grpc.StatusCode}
            context.abort(codes[error.code], str(error))

    def _check_model(self, request: Any) -> None:
        if not request.HasField("model_spec"):
            raise InvalidArgument("Missing ModelSpec")
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else self.version
        if (spec.name, version) != (self.name, self.version):
            given = spec.HasField("version")
            asked = f"Specific({spec.name}, {version})" if given else f"Latest({spec.name})"
            raise TensorFlowError(f"Servable not found for request: {asked}", NOT_FOUND)

    def _run(self, request: Any) -> Any:
        signature = request.model_spec.signature_name or "serving_default"
        inputs = {}
        for tensor in request.inputs:
            try:
                inputs[tensor.key] = make_ndarray(tensor.value)
            except (KeyError, TypeError, ValueError) as error:
                raise InvalidArgument(f"tensor parsing error: {tensor.key}") from error
        outputs = self._model.run(signature, inputs, request.output_filter)
        response = PredictResponse()
        response.model_spec.name = self.name
        response.model_spec.version.value = self.version
        response.model_spec.signature_name = signature
        for key, value in outputs.items():
            response.outputs.add(key=key, value=_tensor_proto(value))
        return response


def _warmup_requests(path: Path) -> Iterator[Any]:
    """The requests of a TFRecord of PredictionLog; none where there is no file."""
    if not path.exists():
        return
    reader = PyRecordReader_New(str(path))
    count = 0
    while True:
        try:
            reader.GetNext()
        except OutOfRangeError:
            return
        count += 1
        record = PredictionLog.FromString(reader.record())
        if count > MAX_WARMUP_RECORDS or not record.HasField("predict_log"):
            raise InvalidArgument(
                f"{path}: expected at most {MAX_WARMUP_RECORDS} records, each with a "
                f"predict_log; record {count} is one too many or has none."
            )
        yield record.predict_log.request


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="Serve a model over gRPC.")
    parser.add_argument("folder", type=Path, help="NAME, with integer versions in it")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--threads", type=int, default=4, help="requests at a time")
    arguments = parser.parse_args()
    service = PredictionService(arguments.folder)
    predict = grpc.unary_unary_rpc_method_handler(
        service.predict, PredictRequest.FromString, PredictResponse.SerializeToString
    )
    server = grpc.server(
        futures.ThreadPoolExecutor(arguments.threads),
        handlers=[
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.PredictionService", {"Predict": predict}
            )
        ],
        options=MESSAGE_LIMITS,
    )
    port = server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


# === For tests ===


@contextmanager
def serving(folder: Path, threads: int = 4) -> Iterator[str]:
    """Serve a folder in a process of its own; the value is the address.

    Raises:
        RuntimeError: The server did not start; the message is what it wrote.
    """
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, __file__, str(folder), "--threads", str(threads)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            try:
                assert process.stdout is not None
                port = process.stdout.readline().strip()
                if not port:
                    process.wait()
                    log.seek(0)
                    raise RuntimeError(f"{folder} could not be served:\n{log.read()}")
                yield f"127.0.0.1:{port}"
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
