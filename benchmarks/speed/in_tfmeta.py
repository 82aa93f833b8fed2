"""The work done by tfmeta."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
import work as works
from work import Work
from worker import serve, timed

import tfmeta


def new_learner(work: Work) -> tfmeta.MetaLearner:
    options: dict[str, Any] = {
        "inner_learning_rate": works.INNER_LEARNING_RATE,
        "inner_steps": work.inner_steps,
        "first_order": work.first_order,
    }
    if work.learner == "relation_network":
        options, network = {}, tfmeta.backbones.relation_encoder(work.image, work.filters)
    else:
        if work.learner == "prototypical_network":
            options = {}
        network = tfmeta.backbones.conv4(
            work.n_way if options else None,
            work.image,
            work.filters,
            "max_pool" if work.max_pool else "stride",
            "flatten" if work.max_pool else "mean",
        )
    learner = tfmeta.learners.get(work.learner)(network, **options)
    learner.compile(keras.optimizers.Adam(works.LEARNING_RATE), learner.default_loss())
    data = work.episodes()
    learner({name: data[name][:1] for name in ("support_x", "support_y", "query_x")})
    for variable, value in zip(learner.trainable_variables, work.weights(), strict=True):
        assert variable.shape == value.shape, (variable.path, variable.shape, value.shape)
        variable.assign(value)
    return learner


class GradientsInPlace(keras.optimizers.SGD):
    """An optimizer after whose step each variable is its gradient."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign(variable, gradient)


class Clock(keras.callbacks.Callback):
    """The seconds of every step of `fit` but its first, from end to end."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends.append(time.perf_counter())


def prepare(work: Work) -> tuple[Callable[[int], list[float]], Callable[[], list[Any]]]:
    learner, data = new_learner(work), work.episodes()
    y = data.pop("query_y")

    if work.task == "train":
        dataset = tf.data.Dataset.from_tensors((data, y)).repeat()

        def check() -> list[Any]:
            probe = new_learner(work)
            probe.compile(GradientsInPlace(), probe.default_loss())
            loss = probe.train_on_batch(data, y)
            return [np.asarray(loss), *[v.numpy() for v in probe.trainable_variables]]

        def run(n: int) -> list[float]:
            clock = Clock()
            learner.fit(dataset, steps_per_epoch=n + 1, shuffle=False, verbose=0, callbacks=[clock])
            return np.diff(clock.ends).tolist()

        return run, check

    if work.task == "evaluate":
        return timed(lambda: learner.predict_on_batch(data)), lambda: [
            learner.predict_on_batch(data)
        ]

    x, labels, queries = data["support_x"][0], data["support_y"][0], data["query_x"][0]

    def adapt_and_predict() -> np.ndarray:
        return np.asarray(learner.adapt(x, labels)(queries))[None]

    return timed(adapt_and_predict), lambda: [adapt_and_predict()]


def describe() -> dict[str, Any]:
    return {
        "tfmeta": tfmeta.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "sgemm_gflops": sgemm_gflops(),
    }


def sgemm_gflops(size: int = 2048) -> float:
    """The machine's rate of large matrix products, one on each core."""
    n = os.cpu_count() or 1
    matrices = [tf.random.normal([size, size]) for _ in range(n)]

    @tf.function
    def products() -> tf.Tensor:
        return tf.add_n([tf.matmul(m, m)[0, 0] for m in matrices])

    products()
    seconds = timed(lambda: products().numpy())(7)
    return n * 2 * size**3 / float(np.median(seconds)) / 1e9


if __name__ == "__main__":
    if os.environ.get("TFMETA_THREADS", "configured") == "configured":
        tfmeta.configure_threads()
    serve({"tfmeta": prepare}, describe)
