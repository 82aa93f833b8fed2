"""How time and memory of the meta-training step grow with tasks and inner steps.

python benchmarks/speed/scaling.py

Each line is a process of its own, which takes work A's step (run.py) with other sizes: the time to
the first step (tracing, and the step), the median step of `fit`, and the process's peak
memory. The last line tells what `fit` itself adds to the compiled step.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
from work import ROWS

SIZES = [(4, 5), (8, 5), (16, 5), (32, 5), (64, 5), (32, 1), (32, 2), (32, 3), (32, 10)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--one", type=int, nargs=2, help="tasks and inner steps, in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.steps)))
        return
    print("| tasks | inner steps | first step, s | step, ms | ms per task | peak memory, MiB |")
    print("| --- " * 6 + "|")
    for n_tasks, inner_steps in SIZES:
        command = [sys.executable, __file__, "--steps", str(options.steps)]
        command += ["--one", str(n_tasks), str(inner_steps)]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        line = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {n_tasks} | {inner_steps} | {line['first']:.1f} | {line['fit'] * 1e3:.0f} | "
            f"{line['fit'] / n_tasks * 1e3:.1f} | {line['peak']:.0f} |",
            flush=True,
        )
        if (n_tasks, inner_steps) == (32, 5):
            overhead = line["fit"] / line["compiled"] - 1
    print(f"\n`fit` takes {overhead:.1%} more than the compiled step alone (32 tasks, 5 steps).")


def measure(n_tasks: int, inner_steps: int, n: int) -> dict[str, float]:
    import in_tfmeta
    import tensorflow as tf

    import tfmeta

    tfmeta.configure_threads()
    work = replace(ROWS[0], n_tasks=n_tasks, inner_steps=inner_steps)
    learner, data = in_tfmeta.new_learner(work), work.episodes()
    y = data.pop("query_y")
    began = time.perf_counter()
    learner.train_on_batch(data, y)
    first = time.perf_counter() - began
    dataset = tf.data.Dataset.from_tensors((data, y)).repeat()
    clock = in_tfmeta.Clock()
    options = {"shuffle": False, "verbose": 0, "callbacks": [clock]}
    batches = iter(dataset)
    fit, compiled = [], []
    for _ in range(3):  # in turn, so that drifts of the machine hit both
        learner.fit(dataset, steps_per_epoch=n, **options)
        fit += np.diff(clock.ends).tolist()
        for _ in range(n):
            began = time.perf_counter()
            {k: float(v) for k, v in learner.train_function(batches).items()}
            compiled.append(time.perf_counter() - began)
    return {
        "first": first,
        "fit": float(np.median(fit)),
        "compiled": float(np.median(compiled)),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
