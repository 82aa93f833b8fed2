"""How long a served model takes to answer, and how much of that is the model itself.

python benchmarks/serving/latency.py [--seconds 15]

Exports servables, and asks each over gRPC on loopback, with TensorFlow Serving's own client, as
one client and as eight at once; prints a table in Markdown. The server is the tests' stand-in for
`tensorflow_model_server`: the same C++ runtime, behind a front in Python that knows no batching.
"The model alone" is the same request run by that runtime in a process that does nothing else.

A request holds one task, 5-way 1-shot, with 15 queries; to the adapted model, only the queries. A
client sends its next request as soon as it has its answer, parsed but not made an array.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

# The stand-in, and what loads a SavedModel as the server does, without TensorFlow's Python.
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "serving"))

N_WAY, N_QUERY, SHAPE = 5, 15, (28, 28, 1)
CLIENTS = 8
WARMUP, FEWEST = 30, 200  # requests
SERVER_THREADS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15, help="for each measurement, at least")
    parser.add_argument("--alone", type=Path, nargs=2, help="a SavedModel and inputs, without gRPC")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(alone(*options.alone, options.seconds)))
        return
    print(
        "| servable | clients | p50, ms | p99, ms | requests per second | the model alone, p50, ms "
        "| its share of p50 |"
    )
    print("| --- " * 7 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (version, inputs, expected) in export(Path(folder)).items():
            np.savez(Path(folder) / "inputs.npz", **inputs)
            command = [sys.executable, __file__, "--seconds", str(options.seconds)]
            command += ["--alone", str(version), str(Path(folder) / "inputs.npz")]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            model = np.median(json.loads(output))
            for n_clients in (1, CLIENTS):
                seconds, rate = over_grpc(version, inputs, expected, n_clients, options.seconds)
                p50, p99 = np.percentile(seconds, [50, 99])
                share = f"{model * 1e3:.2f} | {model / p50:.0%}" if n_clients == 1 else "|"
                print(
                    f"| {name} | {n_clients} | {p50 * 1e3:.2f} | {p99 * 1e3:.2f} | {rate:.0f} | "
                    f"{share} |",
                    flush=True,
                )


def export(folder: Path) -> dict[str, tuple[Path, dict[str, np.ndarray], np.ndarray]]:
    """Servables by name: the version's folder, a request, and the logits that answer it."""
    import keras

    import tfmeta

    keras.utils.set_random_seed(0)
    network = tfmeta.backbones.conv4(N_WAY, SHAPE, 64, "stride")
    maml = tfmeta.MAML(network, inner_learning_rate=0.1, inner_steps=5, batch_norm="support")
    encoder = tfmeta.backbones.conv4(None, SHAPE, 64, "stride")
    prototypical = tfmeta.PrototypicalNetwork(encoder, batch_norm="support")
    rng = np.random.default_rng(0)
    inputs = {
        "support_x": rng.random((1, N_WAY, *SHAPE), "float32"),
        "support_y": np.arange(N_WAY)[None],
        "support_mask": np.ones((1, N_WAY), "float32"),
        "query_x": rng.random((1, N_QUERY, *SHAPE), "float32"),
    }
    task = maml.adapt(inputs["support_x"][0], inputs["support_y"][0])
    x = inputs["query_x"][0]
    found = {}
    for name, model, request, given in [
        ("MAML, 5 inner steps", maml, inputs, inputs),
        ("Prototypical Network", prototypical, inputs, inputs),
        ("adapted model", task, {"x": x}, x),
    ]:
        version = tfmeta.serving.export(model, folder / f"servable_{len(found)}")
        found[name] = (version, request, np.asarray(model(given, training=False)))
    return found


def alone(version: Path, inputs: Path, seconds: float) -> list[float]:
    """Seconds of each run of a request, in a process that never imports TensorFlow's Python."""
    from c_api import SavedModel

    model = SavedModel(version)
    with np.load(inputs) as arrays:
        request = dict(arrays)
    for _ in range(WARMUP):
        model.run("serving_default", request)
    return timed(lambda: model.run("serving_default", request), seconds, FEWEST)


def over_grpc(
    version: Path,
    inputs: dict[str, np.ndarray],
    expected: np.ndarray,
    n_clients: int,
    seconds: float,
) -> tuple[list[float], float]:
    """Seconds of each request, and requests per second, by clients at once."""
    import grpc
    import tensorflow as tf
    from prediction_service import serving
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = version.parent.name
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))

    begin = threading.Barrier(n_clients)

    def client(address: str) -> tuple[list[float], float, float]:
        # A connection of its own, as another machine would have.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            for _ in range(WARMUP):
                answer = stub.Predict(request, timeout=60)
            logits = tf.make_ndarray(answer.outputs["logits"])
            np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
            begin.wait()
            began = time.perf_counter()
            taken = timed(
                lambda: stub.Predict(request, timeout=60), seconds, -(-FEWEST // n_clients)
            )
            return taken, began, time.perf_counter()

    with (
        serving(version.parent, SERVER_THREADS) as address,
        futures.ThreadPoolExecutor(n_clients) as pool,
    ):
        own = time.process_time()
        results = list(pool.map(client, [address] * n_clients))
        own = time.process_time() - own
    taken = [t for times, _, _ in results for t in times]
    duration = max(end for _, _, end in results) - min(begun for _, begun, _ in results)
    own /= len(taken) + n_clients * WARMUP
    print(
        f"{n_clients} clients, {len(taken)} requests, {own * 1e3:.2f} ms of CPU each in them",
        file=sys.stderr,
    )
    return taken, len(taken) / duration


def timed(run: Callable[[], Any], seconds: float, fewest: int) -> list[float]:
    """Seconds of each run, one after the other, for so long and at least so often."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < fewest or time.perf_counter() < end:
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return taken


if __name__ == "__main__":
    main()
