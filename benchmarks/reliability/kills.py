"""Kills runs of `tfmeta train` at random moments, and compares them with runs that were not.

    python benchmarks/reliability/kills.py runs/kills --kills 30

For each learner a tiny recipe is trained once without interruption, and once with this
many SIGKILLs, at moments drawn uniformly between the beginning of a session and twice the time that
the rest of the run takes, with a checkpoint after every second step. Weights, optimizer, history
and the best learner must be the same, bit for bit. `results.json` in the folder counts the kills by
where they fell. The command, repeated, begins anew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

DIGITS: dict[str, Any] = {
    "data": {"name": "digits"},
    "episodes": {"n_way": 2, "n_shot": 1, "n_query": 2, "meta_batch_size": 2},
    "network": {"name": "conv4", "filters": 4},
}
SINUSOIDS: dict[str, Any] = {
    "data": {"name": "sinusoid"},
    "episodes": {"n_shot": 4, "n_query": 4, "meta_batch_size": 4},
    "network": {"name": "mlp", "hidden_units": [8]},
}
LEARNERS: dict[str, dict[str, Any]] = {
    "maml": {**DIGITS, "learner": {"name": "maml", "batch_norm": "running"}},
    "meta_lstm": {**DIGITS, "learner": {"name": "meta_lstm", "batch_norm": "running"}},
    # Its encoder of images needs larger ones than the digits that scikit-learn ships.
    "relation_network": {**SINUSOIDS, "learner": {"name": "relation_network"}},
}


def recipe(name: str) -> dict[str, Any]:
    """Returns the recipe of a learner."""
    return {
        "name": f"kills_{name}",
        **LEARNERS[name],
        "training": {
            "epochs": 6,
            "steps_per_epoch": 20,
            "optimizer": {"class_name": "Adam", "config": {"learning_rate": 0.001}},
            "seed": 1,
        },
        "validation": {"n_episodes": 8},
        "evaluation": {"n_episodes": 4},
        "protocol": "runs that are killed",
    }


def session(content: dict[str, Any], folder: Path) -> int:
    """Starts a process that trains into a folder; returns its number."""
    child = os.fork()  # Before TensorFlow computes anything; it is imported only once.
    if child:
        return child
    with folder.with_suffix(".log").open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    from tfmeta import training
    from tfmeta.recipes import Recipe

    try:
        training.train(Recipe.from_dict(content), folder, checkpoint_every=2)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)
    os._exit(0)


def where(folder: Path, position: tuple[int, int] | None) -> str:
    """Says in words what a kill interrupted, from what is left and what was resumed from."""
    if not (folder / "history.csv").exists() and position is None:
        return "before the first checkpoint"
    if any(p.name.startswith(".") and p.suffix == ".keras" for p in folder.iterdir()):
        return "while a checkpoint was written"
    if position is None:
        return "between the names of two checkpoints"
    return "within an epoch" if position[1] else "after an epoch"


def position_of(path: Path) -> tuple[int, int] | None:
    """Returns the position in a checkpoint; None if there is none."""
    from tfmeta.callbacks import checkpoint

    if not path.exists():
        return None
    progress = checkpoint.read_progress(path)
    return None if progress is None else progress.position


def values(path: Path) -> list[Any]:
    """Returns all variables in a file, the optimizer's included."""
    import h5py
    import numpy as np

    scratch = path.with_suffix(".h5")
    shutil.unpack_archive(path, path.with_suffix(""), "zip")
    with h5py.File(path.with_suffix("") / "model.weights.h5") as file:
        found: list[Any] = []
        file.visititems(
            lambda name, item: (
                found.append((name, np.asarray(item))) if isinstance(item, h5py.Dataset) else None
            )
        )
    shutil.rmtree(path.with_suffix(""))
    scratch.unlink(missing_ok=True)
    return found


def same(folder: Path, whole: Path) -> bool:
    """Returns whether two runs ended alike, bit for bit."""
    from tfmeta.training import read_history

    histories = [[{**row, "seconds": 0} for row in read_history(f)] for f in (folder, whole)]
    alike = histories[0] == histories[1]
    for name in ("checkpoint.keras", "best.keras"):
        pairs = list(zip(values(folder / name), values(whole / name), strict=True))
        alike &= all(n == m and (a == b).all() for (n, a), (m, b) in pairs)
    return alike


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    options = parser.parse_args()
    import tfmeta.training  # noqa: F401  # Imported once, for all processes.

    options.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for name in LEARNERS:
        content, moments = recipe(name), random.Random(name)
        whole, killed = options.folder / f"{name}_whole", options.folder / f"{name}_killed"
        for folder in (whole, killed):
            shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        _, status = os.waitpid(session(content, whole), 0)
        assert status == 0, f"see {whole}.log"
        seconds = time.monotonic() - began
        places: Counter[str] = Counter()
        while places.total() < options.kills:
            before = position_of(killed / "checkpoint.keras") or (0, 0)
            child = session(content, killed)
            # What is left, and the time that every session takes to begin.
            left = seconds * (0.4 + 0.2 * (1 - (before[0] * 20 + before[1]) / 120))
            time.sleep(moments.uniform(0, 2 * left))
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                assert status == 0, f"see {killed}.log"
                shutil.rmtree(killed)  # It was finished: begin another one.
                continue
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if killed.exists():
                places[where(killed, position_of(killed / "checkpoint.keras"))] += 1
        _, status = os.waitpid(session(content, killed), 0)
        assert status == 0, f"see {killed}.log"
        results[name] = {"kills": dict(places), "same": same(killed, whole)}
        print(name, results[name], flush=True)
        (options.folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
