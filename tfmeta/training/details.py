"""The details of a run in `run.json`: its data, and the machine and versions of each session."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.files import write_json
from tfmeta.recipes.plan import Plan
from tfmeta.recipes.setting import Setting
from tfmeta.training.run_folder import DETAILS
from tfmeta.version import __version__


def machine() -> str:
    """Describes this machine in words."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that results depend on."""
    return {
        "tfmeta": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def write_details(folder: Path, plan: Plan, epoch: int) -> None:
    """Writes `run.json`, or adds a session to it.

    Args:
        folder: Path. The run folder.
        plan: Plan. What is trained.
        epoch: int. Number of epochs that were trained before.
    """
    source = plan.train.source
    image_format = source.image_format
    details = {
        "example_shape": list(source.example_shape),
        "image_format": None if image_format is None else vars(image_format),
        "data": {
            setting.split: class_count(setting)
            for setting in (plan.train, plan.validation, plan.tests[0])
        },
        "classes": {
            setting.split: getattr(setting.source, "class_names", None)
            for setting in (plan.train, plan.validation, plan.tests[0])
        },
        # tfmeta 0.1 has these alone.
        "test_classes": getattr(plan.tests[0].source, "class_names", None),
    }
    session = {
        "machine": machine(),
        "versions": versions(),
        "threads": {
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
        },
    }
    write_json(
        folder / DETAILS,
        {
            **details,
            # tfmeta 0.1 looks for the last session here.
            **session,
            "sessions": [*_earlier_sessions(folder / DETAILS), {"epoch": epoch, **session}],
        },
    )


def class_count(setting: Setting) -> int | None:
    """Returns the number of classes of a setting's data; None for regression tasks."""
    names = getattr(setting.source, "class_names", None)
    return None if names is None else len(names)


def data_line(plan: Plan) -> str:
    """Describes the data and the learner in one line, to be printed before training.

    Args:
        plan: Plan. What is trained.
    """
    counts = [class_count(s) for s in (plan.train, plan.validation, plan.tests[0])]
    shape = "×".join(str(n) for n in plan.train.source.example_shape)
    if counts[0] is None:
        of_what = f"regression tasks, examples of shape {shape}"
    else:
        of_what = (
            f"{' / '.join(str(n) for n in counts)} classes for training / validation / test, "
            f"examples of shape {shape}"
        )
    learner = plan.learner
    size = f", {learner.count_params():,} parameters" if learner.built else ""
    return f"{plan.recipe.data.name}: {of_what}. {type(learner).__name__}{size}."


def _earlier_sessions(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    details = json.loads(file.read_text(encoding="utf-8"))
    if "sessions" in details:
        return list(details["sessions"])
    # The files of tfmeta 0.1 describe only the last session, without its first epoch.
    return [{"epoch": None, **{key: details[key] for key in ("machine", "versions", "threads")}}]
