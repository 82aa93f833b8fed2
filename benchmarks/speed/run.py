"""How fast a meta-training step is, beside PyTorch and JAX. All work is done in turn.

python benchmarks/speed/run.py [--rows 0 3] [--rounds 5] [--output FILE]

Installs the peers from the package registry into an environment of their own (.venv-peers), has
every contender compute the same thing first, and then times them in turn, round by round. It
prints a table in Markdown and writes all seconds to a JSON file.
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
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from work import ROWS, Work

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / ".venv-peers"
TOLERANCE = 1e-4
SEEDS = 10

TFMETA, AS_IS, LOOP = "tfmeta", "tfmeta, default threads", "PyTorch, loop over tasks"
VMAP, JAXES = "torch.func.vmap", ["JAX, vmap", "JAX, lax.map"]


class Worker:
    """A process that does the work of some contenders when asked to."""

    def __init__(self, python: Path, script: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [str(python), "-u", str(HERE / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("VERBOSE") else None,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        )

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"A worker failed at {request}: run with VERBOSE=1 to see why.")
        return json.loads(answer)


def install_peers() -> Path:
    python = PEERS / "bin" / "python"
    if not (PEERS / "installed").exists():
        print("Installing PyTorch and JAX …", file=sys.stderr)
        venv.create(PEERS, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "numpy", "torch", "jax", "optax"],
            check=True,
        )
        (PEERS / "installed").touch()
    return python


def contenders_of(work: Work) -> list[str]:
    if work.learner in ("prototypical_network", "relation_network"):
        return [TFMETA, AS_IS, LOOP]
    if work.task != "train":
        return [TFMETA, AS_IS, LOOP, *JAXES]
    return [TFMETA, AS_IS, LOOP, VMAP, *JAXES]


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest, over all arrays, of the difference's norm beside the array's."""
    assert [a.shape for a in ours] == [a.shape for a in theirs]
    return max(
        float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12))
        for a, b in zip(ours, theirs, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(range(len(ROWS))))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps per round and contender")
    parser.add_argument("--output", type=Path, default=Path("runs/speed.json"))
    options = parser.parse_args()

    peers = install_peers()
    ours = Path(sys.executable)
    torch, jax = Worker(peers, "in_torch.py"), Worker(peers, "in_jax.py")
    workers = {
        TFMETA: Worker(ours, "in_tfmeta.py"),
        AS_IS: Worker(ours, "in_tfmeta.py", TFMETA_THREADS="default"),
        **dict.fromkeys([LOOP, VMAP], torch),
        **dict.fromkeys(JAXES, jax),
    }
    machine: dict[str, Any] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    for worker in (workers[TFMETA], torch, jax):
        machine.update(worker.ask(do="describe"))
    print(machine, file=sys.stderr)

    results: list[dict[str, Any]] = []
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for work in [ROWS[i] for i in options.rows]:
        row = compare(work, workers, options.rounds, options.steps)
        row["floor"] = work.flop() / machine["sgemm_gflops"] / 1e9
        results.append(row)
        print(json.dumps(summary(row), indent=2), file=sys.stderr)
        # After each, for a later one may fail its check.
        options.output.write_text(json.dumps({"machine": machine, "rows": results}, indent=1))
    print(table(results))


def compare(work: Work, workers: dict[str, Worker], rounds: int, steps: int) -> dict[str, Any]:
    names = contenders_of(work)

    def ask(name: str, **request: Any) -> Any:
        # The same worker may run with other settings under another name.
        contender = TFMETA if name == AS_IS else name
        return workers[name].ask(**{"work": work.as_json(), "contender": contender, **request})

    differences = check(work, ask, names)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        ask(name, do="prepare")
        ask(name, do="time", n=2)
    for _ in range(rounds):
        for name in names:
            seconds[name] += ask(name, do="time", n=steps * (20 if work.task == "adapt" else 1))
    for worker in set(workers.values()):
        worker.ask(do="forget")
    return {"work": work.as_json(), "differences": differences, "seconds": seconds}


def check(work: Work, ask: Callable[..., Any], names: list[str]) -> dict[str, float]:
    """Differences from tfmeta in what is computed, for a few tasks.

    Where an activation is zero to rounding, float32 takes it for one or the other side of ReLU's
    kink, and the meta-gradient jumps by a thousandth. So further tasks are tried, until there are
    some without such an activation, and all agree on them; on no tasks would they by chance.

    Raises:
        RuntimeError: If there are none.
    """
    for seed in range(SEEDS):
        few = replace(work, seed=seed, **work.check).as_json()
        outcomes: dict[str, list[np.ndarray]] = {}
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "outcome.npz")
            for name in names:
                ask(name, do="check", work=few, file=file)
                with np.load(file) as arrays:
                    outcomes[name] = list(arrays.values())
        differences = {name: difference(outcomes[name], outcomes[TFMETA]) for name in names}
        if max(differences.values()) < TOLERANCE:
            return differences
        print(f"{work.name}: episodes {seed} give {differences}", file=sys.stderr)
    raise RuntimeError(f"{work.name}: not the same is computed: {differences}.")


def summary(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "row": row["work"]["name"],
        "floor": round(row["floor"], 4),
        **{
            name: [round(float(np.percentile(s, q)), 4) for q in (50, 0, 99)]
            for name, s in row["seconds"].items()
        },
        "largest difference": max(row["differences"].values()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Medians ± half of the quartiles' distance; and how many times tfmeta's time that is."""
    names = [TFMETA, AS_IS, LOOP, VMAP, *JAXES]
    lines = [
        "| work | floor | share of floor | " + " | ".join(names) + " |",
        "| --- " * (len(names) + 3) + "|",
    ]
    for row in rows:
        ours = statistics.median(row["seconds"][TFMETA])
        cells = []
        for name in names:
            if name not in row["seconds"]:
                cells.append("–")
                continue
            low, median, high = np.percentile(row["seconds"][name], [25, 50, 75])
            cell = f"{median * 1e3:,.{0 if median > 0.1 else 1}f} ± {(high - low) / 2e-3:.1f} ms"
            cells.append(cell if name == TFMETA else f"{cell} (×{median / ours:.2f})")
        floor = f"{row['floor'] * 1e3:,.1f} ms | {row['floor'] / ours:.0%}"
        lines.append(f"| {row['work']['name']} | {floor} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
