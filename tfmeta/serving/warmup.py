"""Warmup requests, which a server replays before it takes others, so that none of these is slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

FILE = Path("assets.extra", "tf_serving_warmup_requests")

# The messages of tensorflow-serving-api belong to an extra, so they are imported when needed.
MISSING = "Serving needs tensorflow-serving-api: pip install 'tfmeta[serving]'."


class Request(NamedTuple):
    """A request to a signature: its name, and arrays by the names of the inputs."""

    signature: str
    inputs: Mapping[str, np.ndarray]

    def with_inputs(self, inputs: Mapping[str, np.ndarray]) -> Request:
        """Returns the request with some other inputs, cast to the dtypes of the old ones."""
        cast = {name: x.astype(self.inputs[name].dtype) for name, x in inputs.items()}
        return Request(self.signature, {**self.inputs, **cast})


def write_requests(folder: Path, name: str, requests: Sequence[Request]) -> None:
    """Writes the requests where a server looks for them.

    Args:
        folder: Path. The version's folder.
        name: str. The servable's name.
        requests: sequence of Request. At most 1,000, which is all that a server takes.

    Raises:
        ImportError: Without the extra `tfmeta[serving]`.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise ImportError(MISSING) from error
    (folder / FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for request in requests:
            message = predict_pb2.PredictRequest()
            message.model_spec.name = name
            message.model_spec.signature_name = request.signature
            for key, value in request.inputs.items():
                message.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=message)
            )
            writer.write(log.SerializeToString())


def read_requests(folder: Path) -> list[Request]:
    """Returns the warmup requests in a version's folder; none if it has no such file.

    Raises:
        ValueError: If the file is broken.
        ImportError: Without the extra `tfmeta[serving]`.
    """
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise ImportError(MISSING) from error
    if not (folder / FILE).is_file():
        return []
    requests = []
    try:
        for record in tf.data.TFRecordDataset(str(folder / FILE)).as_numpy_iterator():
            message = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {key: tf.make_ndarray(value) for key, value in message.inputs.items()}
            requests.append(Request(message.model_spec.signature_name, inputs))
    # The file holds no records, the records no messages, or the messages no arrays.
    except (tf.errors.OpError, DecodeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / FILE} is broken or holds no warmup requests: export the servable again."
        ) from error
    return requests
