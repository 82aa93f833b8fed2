"""How fast learners are on a GPU: all tasks at once, compiled; and that this changes no result.

python benchmarks/gpu/run.py [--rows 0 3] [--steps 50] [--loop] [--chunks 32 16 8] [--quick]

Works without a network. Every learner first goes through the conformance harness's check that loop
and vectorised agree in float64, on the device; and before a row is timed, a meta-batch of two tasks
is computed both ways in full float32. The script prints the card and the versions, a table in
Markdown of the works of `benchmarks/speed`, the memory of work A by the number of tasks at once,
and how long `fit` waits for episodes with one and ten steps per execution. `--quick` tries it on a
machine without a GPU: tiny works, of which the times say nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))

import keras
import numpy as np
import tensorflow as tf
from in_tfmeta import Clock, GradientsInPlace, new_learner
from work import ROWS, Work

import tfmeta
import tfmeta.testing

ALL_ROWS = [*ROWS, replace(ROWS[0], name="MAML, 5 inner steps, 128 tasks", n_tasks=128)]
# In full float32 both ways agree to rounding, which second derivatives enlarge.
TOLERANCE = 1e-3


def made_small(work: Work) -> Work:
    """The work for `--quick`."""
    image = (28, 28, work.image[2])
    return replace(work, n_tasks=min(work.n_tasks, 3), filters=4, inner_steps=2, image=image)


def compiled(work: Work, mapping: str, tasks_at_once: int | None = None, **options: Any) -> Any:
    learner = new_learner(work)
    learner.task_mapping, learner.tasks_at_once = mapping, tasks_at_once
    learner.compile(keras.optimizers.Adam(1e-3), learner.default_loss(), **options)
    return learner


# === Agreement ===


def conform() -> None:
    """Checks learners of dense networks in the conformance harness, in float64."""

    def network(n_outputs: int | None = 3) -> Any:
        layers = [keras.Input((4,)), keras.layers.Dense(8), keras.layers.BatchNormalization()]
        head = [] if n_outputs is None else [keras.layers.Dense(n_outputs)]
        return keras.Sequential([*layers, keras.layers.ReLU(), *head])

    def make(name: str) -> Any:
        if name == "cavia":
            return tfmeta.CAVIA(tfmeta.backbones.mlp(3, (4,), (8,), n_context=2))
        if name == "anil":
            return tfmeta.ANIL(network(None), 3)
        if name == "relation_network":
            of_pairs = keras.Sequential([keras.Input((16,)), keras.layers.Dense(1, "sigmoid")])
            return tfmeta.RelationNetwork(network(None), of_pairs)
        learner = tfmeta.learners.get(name)
        return learner(network(3 if learner.takes == "network" else None))

    for name in tfmeta.learners.BY_NAME:
        case = tfmeta.testing.Case(name, lambda name=name: make(name))
        tfmeta.testing.run("vectorized_equals_loop", case)
        print(f"{name}: vectorised equals loop, to 1e-9")


def difference(work: Work, mapping: str) -> float:
    """The largest difference of a gradient between loop and vectorised, relative to its norm."""
    work = replace(work, **work.check) if work.task == "train" else work
    data = work.episodes()
    y = data.pop("query_y")
    found = []
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        for how in ("loop", mapping):
            learner = compiled(work, how)
            if work.task == "train":
                learner.compile(GradientsInPlace(), learner.default_loss())
                learner.train_on_batch(data, y)
                found.append([v.numpy() for v in learner.trainable_variables])
            else:
                found.append([learner.predict_on_batch(data)])
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)
    # Weights that batch norm makes ineffective have gradients of rounding alone.
    size = max(np.linalg.norm(a) for a in found[0])
    return max(float(np.linalg.norm(a - b) / size) for a, b in zip(*found, strict=True))


# === Measurements ===


def measure(work: Work, learner: Any, n_steps: int) -> tuple[float, float, float | None]:
    """The seconds of the first step and of one further step, and the peak memory in MiB."""
    data = work.episodes()
    y = data.pop("query_y")
    reset_peak()
    if work.task == "train":
        dataset = tf.data.Dataset.from_tensors((data, y)).repeat()
        first = timed_fit(learner, dataset, 1)
        return first, timed_fit(learner, dataset, n_steps) / n_steps, peak()
    x, labels, queries = data["support_x"][0], data["support_y"][0], data["query_x"][0]

    def once() -> None:
        if work.task == "evaluate":
            learner.predict_on_batch(data)
        else:
            np.asarray(learner.adapt(x, labels)(queries))

    first = seconds(once)
    return first, float(np.median([seconds(once) for _ in range(n_steps)])), peak()


def timed_fit(learner: Any, dataset: tf.data.Dataset, n_steps: int) -> float:
    """The seconds of `fit`, between the ends of its first and its last batch if it has several."""
    clock = Clock()
    began = time.perf_counter()
    learner.fit(dataset, steps_per_epoch=n_steps, shuffle=False, verbose=0, callbacks=[clock])
    ended = time.perf_counter()
    if len(clock.ends) < 2:
        return ended - began
    # `fit` ends when the device has: the last batch's end alone may come before.
    return (ended - clock.ends[0]) * len(clock.ends) / (len(clock.ends) - 1)


def seconds(function: Any) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def gpu() -> str | None:
    devices = tf.config.list_logical_devices("GPU")
    return devices[0].name.removeprefix("/device:") if devices else None


def reset_peak() -> None:
    if gpu():
        tf.config.experimental.reset_memory_stats(gpu())


def peak() -> float | None:
    return tf.config.experimental.get_memory_info(gpu())["peak"] / 2**20 if gpu() else None


# === Tables ===


def speed_table(works: list[Work], n_steps: int, with_loop: bool, mapping: str) -> Iterator[str]:
    yield "| work | first step, s | step, ms | peak, MiB | loop over tasks, ms | difference |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for work in works:
        off = difference(work, mapping) if work.task != "adapt" else 0.0
        if off > TOLERANCE:
            raise SystemExit(f"{work.name}: loop and vectorised differ by {off:.1e}.")
        first, step, memory = measure(work, compiled(work, mapping), n_steps)
        loop = "–"
        if with_loop:
            loop = f"{1e3 * measure(work, compiled(work, 'loop'), max(3, n_steps // 10))[1]:.1f}"
        yield (
            f"| {work.name} | {first:.1f} | {1e3 * step:.2f} | {mib(memory)} | {loop} | {off:.0e} |"
        )


def chunk_table(work: Work, sizes: list[int], n_steps: int, mapping: str) -> Iterator[str]:
    yield "| `tasks_at_once` | first step, s | step, ms | peak, MiB |"
    yield "| --- | --- | --- | --- |"
    for size in sizes:
        first, step, memory = measure(work, compiled(work, mapping, size), n_steps)
        yield f"| {size} | {first:.1f} | {1e3 * step:.2f} | {mib(memory)} |"


def feeding_table(work: Work, n_steps: int, mapping: str) -> Iterator[str]:
    """Steps on episodes of drawings as they are made, and on one meta-batch again and again."""
    sampled = (
        tfmeta.data.load("glyphs", split="train")
        .episodes(
            n_way=work.n_way,
            n_shot=work.n_shot,
            n_query=work.n_query,
            meta_batch_size=work.n_tasks,
            seed=0,
        )
        .prefetch(tf.data.AUTOTUNE)
    )
    one = sampled.take(1).cache().repeat()
    yield "| `steps_per_execution` | made episodes, ms | one meta-batch, ms | waiting |"
    yield "| --- | --- | --- | --- |"
    for steps in (1, 10):
        learner = compiled(work, mapping, steps_per_execution=steps)
        timed_fit(learner, one, 2 * steps)
        fed, alone = (timed_fit(learner, d, 10 * n_steps) / (10 * n_steps) for d in (sampled, one))
        waiting = max(0.0, 1 - alone / fed)
        yield f"| {steps} | {1e3 * fed:.2f} | {1e3 * alone:.2f} | {waiting:.0%} |"


def mib(memory: float | None) -> str:
    return "–" if memory is None else f"{memory:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="*", default=range(len(ALL_ROWS)))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--loop", action="store_true", help="time the loop over tasks, too")
    parser.add_argument("--chunks", type=int, nargs="*", default=[32, 16, 8, 4])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if not (options.quick or gpu()):
        raise SystemExit("TensorFlow sees no GPU: give --quick to try the script without one.")
    mapping = "auto" if gpu() else "vectorized"
    works = [ALL_ROWS[i] for i in options.rows]
    work_a = ALL_ROWS[0]
    if options.quick:
        works, work_a = [made_small(w) for w in works], made_small(work_a)
    details = (
        tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        if gpu()
        else {}
    )
    print(
        f"{details.get('device_name', 'no GPU')}, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}, tfmeta {tfmeta.__version__}, TF32 where not compared\n"
    )
    conform()
    print()
    for lines in (
        speed_table(works, options.steps, options.loop, mapping),
        chunk_table(work_a, options.chunks, options.steps, mapping),
        feeding_table(work_a, options.steps, mapping),
    ):
        for line in lines:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
