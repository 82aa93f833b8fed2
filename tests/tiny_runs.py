"""Tiny recipes, and runs of them that are killed.

Run as a script, this file is the run that is killed: see `killed_run`.
"""

from __future__ import annotations

import copy
import csv
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmeta import files, training
from tfmeta.callbacks import Resume, checkpoint
from tfmeta.callbacks.run_files import CHECKPOINT
from tfmeta.recipes import Recipe, network_makers

ADAM: dict[str, Any] = {"class_name": "Adam", "config": {"learning_rate": 0.01}}
CONTENT: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "sinusoid"},
    "episodes": {"n_shot": 4, "n_query": 5, "meta_batch_size": 3},
    "network": {"name": "mlp", "hidden_units": [8]},
    "learner": {"name": "maml", "inner_learning_rate": 0.01},
    "training": {"epochs": 4, "steps_per_epoch": 3, "optimizer": ADAM, "seed": 3},
    "validation": {"n_query": 6, "n_episodes": 7},
    "evaluation": {"n_query": 7, "n_episodes": 10, "inner_steps": 2},
    "protocol": "a tiny one",
}
# With all that has to go on: dropout's seeds, batch norm's moving averages, Adam's moments, moving
# averages of the weights, a scale of the loss, and gradients that are summed over two steps, of
# which an epoch has three.
ALL_STATES: dict[str, Any] = {
    **CONTENT,
    "data": {"name": "digits"},
    "episodes": {"n_way": 2, "n_shot": 2, "n_query": 3, "meta_batch_size": 3},
    "network": {"name": "linear"},
    "learner": {"name": "maml", "inner_learning_rate": 0.1, "batch_norm": "running"},
    "training": {
        "epochs": 3,
        "steps_per_epoch": 3,
        "seed": 3,
        "optimizer": {
            "class_name": "LossScaleOptimizer",
            "config": {
                "inner_optimizer": {
                    "module": "keras.optimizers",
                    "class_name": "Adam",
                    "config": {
                        "learning_rate": 0.01,
                        "use_ema": True,
                        "ema_momentum": 0.7,
                        "gradient_accumulation_steps": 2,
                    },
                }
            },
        },
    },
}


def recipe_of(content: dict[str, Any] = CONTENT, **changes: Any) -> Recipe:
    content = copy.deepcopy(content)
    content["training"].update(changes)
    return Recipe.from_dict(content)


def dropout_network(n_way: int, input_shape: Sequence[int]) -> keras.Model:
    """The network that replaces `linear` in the tests."""
    return keras.Sequential(
        [
            keras.Input(tuple(input_shape)),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(n_way),
        ]
    )


def all_weights(path: Path) -> list[np.ndarray]:
    """All variables in a file, those of the optimizer included."""
    model = keras.models.load_model(path)
    variables = [*model.variables, *model.optimizer.variables]
    assert len({v.path for v in model.optimizer.variables}) > 2
    # Keras does not save the state of seeds; each epoch begins with its own.
    return [keras.ops.convert_to_numpy(v) for v in variables if v.name != "seed_generator_state"]


def rows(folder: Path) -> list[dict[str, str]]:
    """The history of a run, without the seconds."""
    with (folder / "history.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(folder: Path, expected: Path) -> None:
    """Checks that two runs are the same, bit by bit."""
    assert rows(folder) == rows(expected)
    for name in ("best.keras", "checkpoint.keras"):
        pairs = zip(all_weights(folder / name), all_weights(expected / name), strict=True)
        for i, (a, b) in enumerate(pairs):
            np.testing.assert_array_equal(a, b, err_msg=f"{name}: {i}")
        progress = checkpoint.read_progress(folder / name)
        other = checkpoint.read_progress(expected / name)
        assert progress is not None
        assert other is not None
        for attribute in ("epoch", "step", "best_epoch", "averaged"):
            assert getattr(progress, attribute) == getattr(other, attribute)


# === Kills ===

# Where a run is killed, and after how many epochs it resumes.
POINTS = {
    "in an epoch": 1,
    "while the checkpoint is written": 1,
    "before the checkpoint has its name": 1,
    "between the names of the checkpoints": 1,
    "before the best learner": 2,
    "before the history": 2,
}


def killed_run(folder: Path, point: str) -> None:
    """Runs a recipe until it is killed in or after the second epoch."""
    network_makers.NETWORKS["linear"] = dropout_network

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def is_due(history: int) -> bool:
        path = folder / CHECKPOINT
        if not path.exists():
            path = folder / "previous.keras"
        progress = checkpoint.read_progress(path) if path.exists() else None
        return progress is not None and progress.epoch == history

    if point == "in an epoch":
        on_train_batch_end = Resume.on_train_batch_end

        def in_epoch(self: Resume, batch: int, logs: Any = None) -> None:
            on_train_batch_end(self, batch, logs)
            if is_due(1) and batch == 1:
                kill()

        Resume.on_train_batch_end = in_epoch  # type: ignore[method-assign]
    elif point == "while the checkpoint is written":
        sync = files.sync

        def half(path: Path) -> None:
            if path.name.startswith(".checkpoint.") and is_due(1):
                os.truncate(path, path.stat().st_size // 2)
                kill()
            sync(path)

        checkpoint.sync = half  # type: ignore[attr-defined]
    else:
        replace = Path.replace
        name, history = {
            "before the checkpoint has its name": ("previous.keras", 1),
            "between the names of the checkpoints": (CHECKPOINT, 1),
            "before the best learner": ("best.keras", 2),
            "before the history": ("history.csv", 2),
        }[point]

        def replace_or_die(self: Path, target: Path) -> Path:
            if target.name == name and is_due(history):
                kill()
            return replace(self, target)

        Path.replace = replace_or_die  # type: ignore[method-assign]
    training.train(recipe_of(ALL_STATES), folder)


def run_on_full_disk(folder: Path, n_bytes: int) -> None:
    """Runs a recipe; from its second epoch on, no file can grow beyond some bytes."""
    import resource

    network_makers.NETWORKS["linear"] = dropout_network
    on_epoch_begin = Resume.on_epoch_begin

    def on_begin(self: Resume, epoch: int, logs: Any = None) -> None:
        on_epoch_begin(self, epoch, logs)
        if epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))

    Resume.on_epoch_begin = on_begin  # type: ignore[method-assign]
    training.train(recipe_of(ALL_STATES), folder)


def fill_the_disk_of_a_run(folder: Path, n_bytes: int) -> None:
    """Runs `run_on_full_disk` in another process, where it fails."""
    child = subprocess.run(
        [sys.executable, __file__, str(folder), str(n_bytes)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 1, child.stderr
    if n_bytes:  # Else TensorBoard's log is the first that cannot grow, an error of TensorFlow's.
        said = f"{folder} cannot be written: File too large. {folder} is saved up to epoch 1."
        assert said in child.stderr, child.stderr


def kill_a_run(folder: Path, point: str) -> None:
    """Runs `killed_run` in another process."""
    child = subprocess.run(
        [sys.executable, __file__, str(folder), point], capture_output=True, text=True, timeout=300
    )
    assert child.returncode == -signal.SIGKILL, child.stderr


if __name__ == "__main__":
    if sys.argv[2].isdigit():
        run_on_full_disk(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        killed_run(Path(sys.argv[1]), sys.argv[2])
