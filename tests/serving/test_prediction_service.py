"""Stock clients of TensorFlow Serving are answered as by its server."""

import shutil
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from prediction_service import MESSAGE_LIMITS, WARMUP_FILE, serving
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

ROWS = np.array([[1, 2, 3], [0.5, 0.25, 4]], np.float32)


@pytest.fixture(scope="module")
def stub(servable: Path) -> Iterator[Any]:
    with serving(servable) as address, grpc.insecure_channel(address, MESSAGE_LIMITS) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request(
    signature: str = "", model: str = "small", /, **inputs: Any
) -> predict_pb2.PredictRequest:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = model
    message.model_spec.signature_name = signature
    for key, value in inputs.items():
        message.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return message


def refusal(stub: Any, message: predict_pb2.PredictRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        stub.Predict(message, timeout=30)
    return raised.value.code(), raised.value.details()


def test_the_latest_version_answers_the_default_signature(stub: Any) -> None:
    names = np.array([b"a \0", b"b"], object)
    response = stub.Predict(request(x=ROWS, count=np.array([2**40, -1]), name=names), timeout=30)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("small", 10, "serving_default")
    outputs = {key: tf.make_ndarray(value) for key, value in response.outputs.items()}
    assert outputs.keys() == {"total", "next", "greeting", "large"}
    np.testing.assert_array_equal(outputs["total"], np.array([3, 2.375], np.float32))
    np.testing.assert_array_equal(outputs["next"], [2**40 + 1, 0])
    np.testing.assert_array_equal(outputs["large"], ROWS > 1)
    assert outputs["greeting"].tolist() == [b"hello a \0", b"hello b"]


def test_values_may_be_sent_one_by_one_and_come_back_so(stub: Any) -> None:
    message = request("positive")
    tensor = message.inputs["x"]
    tensor.dtype = tf.float32.as_datatype_enum
    tensor.tensor_shape.CopyFrom(tf.TensorShape([1, 3]).as_proto())
    tensor.float_val.extend([1, 4, 9])
    root = stub.Predict(message, timeout=30).outputs["root"]
    assert list(root.float_val) == [1, 2, 3]
    assert [dim.size for dim in root.tensor_shape.dim] == [1, 3]


def test_only_the_outputs_of_the_filter_are_computed(stub: Any) -> None:
    message = request(x=ROWS, count=np.array([1, 2]), name=np.array([b"", b""], object))
    message.output_filter.append("next")
    assert list(stub.Predict(message, timeout=30).outputs) == ["next"]
    message.output_filter.append("nothing")
    code, details = refusal(stub, message)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "output tensor alias not found in signature: {nothing}" in details


def test_what_is_wrong_comes_back_as_the_status_of_the_server(stub: Any) -> None:
    status = grpc.StatusCode
    half = request("positive", x=ROWS)
    half.inputs["x"].tensor_content = half.inputs["x"].tensor_content[:-4]
    for message, code, words in [
        (request("positive", x=-ROWS), status.INVALID_ARGUMENT, "x must be positive"),
        (request("positive", x=ROWS.astype("int64")), status.INVALID_ARGUMENT, "to be float"),
        (request("positive", y=ROWS), status.INVALID_ARGUMENT, "Missing but required: {x}"),
        (half, status.INVALID_ARGUMENT, "tensor parsing error: x"),
        (request("nothing", x=ROWS), status.FAILED_PRECONDITION, '"nothing" not found'),
        (request("compiled", x=ROWS), status.INTERNAL, "XLA compilation disabled"),
        (request("positive", "other", x=ROWS), status.NOT_FOUND, "Latest(other)"),
        (predict_pb2.PredictRequest(), status.INVALID_ARGUMENT, "Missing ModelSpec"),
    ]:
        came, details = refusal(stub, message)
        assert (came, words in details) == (code, True), details


def test_only_the_latest_version_is_there(stub: Any) -> None:
    message = request("positive", x=ROWS)
    message.model_spec.version.value = 10
    assert stub.Predict(message, timeout=30).model_spec.version.value == 10
    message.model_spec.version.value = 2
    assert refusal(stub, message) == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(small, 2)",
    )


def test_requests_at_the_same_time_get_their_own_answers(stub: Any) -> None:
    def root(value: int) -> float:
        x = np.full([1, 3], value, np.float32)
        return stub.Predict(request("positive", x=x), timeout=30).outputs["root"].float_val[0]

    with futures.ThreadPoolExecutor(8) as pool:
        roots = list(pool.map(root, range(1, 401)))
    np.testing.assert_array_equal(roots, np.sqrt(np.arange(1, 401, dtype=np.float32)))


def test_a_message_may_be_larger_than_the_default_of_grpc(stub: Any) -> None:
    x = np.ones([1_000_000, 3], np.float32)
    assert len(stub.Predict(request("positive", x=x), timeout=60).outputs["root"].float_val) == 3e6


def test_warmup_is_replayed_and_a_record_that_fails_fails_the_load(
    servable: Path, tmp_path: Path
) -> None:
    version = tmp_path / "small" / "10"
    shutil.copytree(servable / "10", version)
    write_warmup(version, [request("positive", x=ROWS)] * 3)
    with serving(version.parent) as address, grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert stub.Predict(request("positive", x=ROWS), timeout=30).outputs
    write_warmup(version, [request("positive", x=ROWS), request("positive", x=-ROWS)])
    with pytest.raises(RuntimeError, match="x must be positive"), serving(version.parent):
        pass


def test_a_damaged_warmup_file_fails_the_load(servable: Path, tmp_path: Path) -> None:
    version = tmp_path / "small" / "10"
    shutil.copytree(servable / "10", version)
    write_warmup(version, [request("positive", x=ROWS)])
    path = version / WARMUP_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(RuntimeError, match="crc32"), serving(version.parent):
        pass


def test_a_folder_without_an_integer_version_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "small" / "latest").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="no integer version"), serving(tmp_path / "small"):
        pass


def write_warmup(version: Path, requests: list[predict_pb2.PredictRequest]) -> None:
    """As a publisher writes it, with the stock messages."""
    path = version / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for message in requests:
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=message)
            )
            writer.write(log.SerializeToString())
