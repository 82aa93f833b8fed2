"""Peak memory of the Meta-LSTM by the number of coordinates of the network that it trains.

    python benchmarks/meta_lstm_memory.py

Each row is a process of its own: two meta-training steps of one task (12 updates as in the paper,
first order), or one `adapt`. What Python and TensorFlow take by themselves is in the first row.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

INPUTS = 100


def peak(coordinates: int, updates: int, what: str) -> float:
    """Runs one case in this process; returns its peak memory in MiB."""
    import keras
    import numpy as np

    import tfmeta

    tfmeta.configure_threads()
    n_outputs = max(1, coordinates // INPUTS)
    network = keras.Sequential(
        [keras.Input((INPUTS,)), keras.layers.Dense(n_outputs, use_bias=False)]
    )
    learner = tfmeta.MetaLSTM(network, inner_steps=updates)
    learner.compile("adam", learner.default_loss())
    x = np.random.default_rng(0).normal(size=(1, 5, INPUTS)).astype(np.float32)
    y = np.arange(5)[None] % n_outputs
    if what == "train":
        for _ in range(2):
            learner.train_on_batch({"support_x": x, "support_y": y, "query_x": x}, y)
    elif what == "adapt":
        learner.adapt(x[0], y[0])
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--case", nargs=2, metavar=("COORDINATES", "WHAT"), help="run one case")
    options = parser.parse_args()
    if options.case:
        print(peak(int(options.case[0]), options.updates, options.case[1]))
        return
    print("| coordinates | `adapt`, MiB | training step, MiB |")
    print("| --- | --- | --- |")
    for coordinates in (0, 1_000, 10_000, 100_000, 300_000):
        cells = []
        for what in ("adapt", "train"):
            case = ["--case", str(coordinates or 100), what if coordinates else "nothing"]
            command = [sys.executable, __file__, "--updates", str(options.updates), *case]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            cells.append(f"{float(output.split()[-1]):,.0f}")
        print(f"| {coordinates or 'none, only imported'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
