"""How fast images are embedded, beside the same network in PyTorch.

python benchmarks/embed/run.py [--sizes 224 112] [--images 256] [--batch-size 32] [--rounds 5]
    [--output FILE]

Installs PyTorch from the package registry into an environment of its own (.venv-peers; some GB),
checks that both compute the same features, and times them in turn, round by round:
`tfmeta.data.embed` without its cache as a whole (it reads the images twice and traces the network),
the same encoder alone, and the same network alone in PyTorch, each after a first round to warm up.
Prints a table in Markdown and writes all seconds to a JSON file. Needs the extra
`tfmeta[encoders]`. On a machine that does other work, the numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import tfmeta
from tfmeta.backbones.efficientnet_lite0_weights import weights_file
from tfmeta.data.class_dataset import ClassDataset

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / ".venv-peers"
TOLERANCE = 1e-3
N_CLASSES = 4


def install_torch() -> Path:
    python = PEERS / "bin" / "python"
    has_torch = [str(python), "-c", "import torch"]
    if not python.exists() or subprocess.run(has_torch, capture_output=True).returncode:
        print("Installing PyTorch …", file=sys.stderr)
        venv.create(PEERS, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "numpy", "torch"], check=True)
    return python


def in_torch(python: Path, images: Path, features: Path, batch_size: int) -> dict[str, Any]:
    """One warm-up and one timed round of the network in PyTorch, in a process of its own."""
    arguments = [python, HERE / "in_torch.py", weights_file(), images, features, batch_size, 1]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [str(a) for a in arguments], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def measure(size: int, python: Path, options: argparse.Namespace) -> dict[str, Any]:
    x = np.random.default_rng(0).random((options.images, size, size, 3), np.float32)
    source = tfmeta.data.load((x, np.sort(np.arange(options.images) % N_CLASSES)))
    encoder = tfmeta.backbones.pretrained("efficientnet_lite0", input_shape=(size, size, 3))

    encode = tf.function(lambda part: encoder(part, training=False), autograph=False)
    parts = [
        tf.constant(part)
        for part in np.split(x, range(options.batch_size, len(x), options.batch_size))
    ]

    def embedded() -> ClassDataset:
        return tfmeta.data.embed(
            source, encoder, batch_size=options.batch_size, cache=False, verbose=0
        )

    with tempfile.TemporaryDirectory() as folder:
        images, features = Path(folder, "images.npy"), Path(folder, "features.npy")
        np.save(images, x)
        versions = in_torch(python, images, features, options.batch_size)
        data = embedded()
        ours = data.fetch(tf.constant(np.concatenate(data.rows))).numpy()
        theirs = np.load(features)
        difference = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
        if not difference < TOLERANCE:
            raise RuntimeError(f"The features at {size} pixels differ by {difference:.1e}.")
        alone = np.concatenate([encode(part).numpy() for part in parts])
        np.testing.assert_allclose(alone, ours, rtol=1e-3, atol=1e-4)
        seconds: dict[str, list[float]] = {"embed": [], "encoder": [], "torch": []}
        for _ in range(options.rounds):
            began = time.perf_counter()
            embedded()
            seconds["embed"].append(time.perf_counter() - began)
            began = time.perf_counter()
            for part in parts:
                encode(part).numpy()
            seconds["encoder"].append(time.perf_counter() - began)
            seconds["torch"] += in_torch(python, images, features, options.batch_size)["seconds"]
    return {
        **{"size": size, "images": options.images, "batch_size": options.batch_size},
        **{"difference": difference, "seconds": seconds},
        **{"torch": versions["torch"], "torch_threads": versions["threads"]},
    }


def table(machine: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Images per second: the median over rounds, and the slowest and the fastest."""
    first = rows[0]
    lines = [
        f"Images per second: median (slowest – fastest) of {len(first['seconds']['embed'])} rounds "
        f"of {first['images']} images, {first['batch_size']} at a time. {machine['cores']} cores, "
        f"TensorFlow {machine['tensorflow']}, PyTorch {first['torch']} with "
        f"{first['torch_threads']} threads. Features differ by at most "
        f"{max(row['difference'] for row in rows):.0e} of their norm.",
        "",
        "| image | tfmeta.data.embed | its encoder alone | PyTorch |",
        "| --- " * 4 + "|",
    ]
    for row in rows:
        cells = []
        for seconds in row["seconds"].values():
            rates = [row["images"] / s for s in seconds]
            cells.append(f"{statistics.median(rates):.1f} ({min(rates):.1f} – {max(rates):.1f})")
        lines.append(f"| {row['size']}×{row['size']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 112])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("runs/embed.json"))
    options = parser.parse_args()

    python = install_torch()
    machine = {
        **{"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        **{"python": platform.python_version(), "tensorflow": tf.__version__},
    }
    rows = []
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for size in options.sizes:
        rows.append(measure(size, python, options))
        options.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    print(table(machine, rows))


if __name__ == "__main__":
    main()
