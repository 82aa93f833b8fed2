"""TensorFlow Serving's own server, where it is installed, answers by REST and gRPC."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import tfmeta
from tfmeta.serving.server import SERVER, command

pytestmark = pytest.mark.skipif(
    shutil.which(SERVER) is None, reason=f"{SERVER} is not installed (it is in no registry)"
)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running(folder, grpc_port, rest_port):
    arguments = [*command(folder), f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
    process = subprocess.Popen(arguments)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def test_the_server_answers_by_rest_and_grpc_as_the_model_in_memory(tmp_path):
    learner = tfmeta.PrototypicalNetwork(
        tfmeta.backbones.conv4(None, (14, 14, 1), 8), batch_norm="support"
    )
    tfmeta.serving.export(learner, tmp_path / "few_shot")
    tfmeta.serving.write_settings(tmp_path)
    rng = np.random.default_rng(0)
    inputs = {
        "support_x": rng.random((1, 5, 14, 14, 1), "float32"),
        "support_y": np.arange(5)[None],
        "support_mask": np.ones((1, 5), "float32"),
        "query_x": rng.random((1, 3, 14, 14, 1), "float32"),
    }
    expected = np.asarray(learner(inputs))
    grpc_port, rest_port = free_port(), free_port()
    url = f"http://127.0.0.1:{rest_port}/v1/models/few_shot"
    with running(tmp_path, grpc_port, rest_port) as server:
        for _ in range(120):
            assert server.poll() is None
            with contextlib.suppress(urllib.error.URLError):
                if b"AVAILABLE" in urllib.request.urlopen(url, timeout=5).read():
                    break
            time.sleep(0.5)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "few_shot"
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            answer = stub.Predict(request, timeout=30).outputs
        np.testing.assert_allclose(tf.make_ndarray(answer["logits"]), expected, rtol=1e-4)

        def post(body):
            data = json.dumps(body).encode()
            return json.loads(urllib.request.urlopen(f"{url}:predict", data, timeout=30).read())

        columns = post({"inputs": {name: array.tolist() for name, array in inputs.items()}})
        np.testing.assert_allclose(columns["outputs"]["logits"], expected, rtol=1e-4)
        rows = post({"instances": [{name: array[0].tolist() for name, array in inputs.items()}]})
        np.testing.assert_allclose(rows["predictions"][0]["logits"], expected[0], rtol=1e-4)
        inputs["support_y"] = inputs["support_y"] + 7
        with pytest.raises(urllib.error.HTTPError) as error:
            post({"inputs": {name: array.tolist() for name, array in inputs.items()}})
        assert b"support_y" in error.value.read()
