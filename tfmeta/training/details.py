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

from tfmeta.callbacks.checkpoint import Progress
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


def write_details(folder: Path, plan: Plan, progress: Progress) -> None:
    """Writes `run.json`, or adds a session to it; prints what differs from the session before.

    Args:
        folder: Path. The run folder.
        plan: Plan. What is trained.
        progress: Progress. How far the run was at the beginning of the session.
    """
    source = plan.train.source
    image_format = source.image_format
    settings = (plan.train, plan.validation, plan.tests[0])
    classes = {setting.split: class_names(setting) for setting in settings}
    details = {
        "example_shape": list(source.example_shape),
        "image_format": None if image_format is None else vars(image_format),
        "data": {setting.split: class_count(setting) for setting in settings},
        "classes": classes,
        # Earlier versions of tfmeta listed only these.
        "test_classes": classes["test"],
    }
    session = {"machine": machine(), "versions": versions(), "threads": _threads()}
    earlier = _earlier_sessions(folder / DETAILS)
    if earlier and (changes := _changes(earlier[-1], session)):
        print(f"Since the session before: {', '.join(changes)}.")
    write_json(
        folder / DETAILS,
        {
            **details,
            # tfmeta 0.1 looks for the last session here.
            **session,
            "sessions": [
                *earlier,
                {"epoch": progress.epoch, "step": progress.step, **session},
            ],
        },
    )


def _threads() -> dict[str, int]:
    return {
        "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
        "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
    }


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Describes how a session differs from the one before."""
    pairs = [("the machine", before.get("machine"), now["machine"])]
    for group, suffix in (("versions", ""), ("threads", " threads")):
        for name, value in now[group].items():
            pairs.append((f"{name}{suffix}", before.get(group, {}).get(name), value))
    return [f"{name} was {old}, is {new}" for name, old, new in pairs if old not in (None, new)]


# === The data ===


def data_facts(plan: Plan) -> dict[str, Any]:
    """Returns what tells the data of a run from others: by split, plain values.

    Args:
        plan: Plan. What is trained.
    """

    def facts(setting: Setting) -> dict[str, Any]:
        source = setting.source
        names, rows = class_names(setting), getattr(source, "rows", ())
        image_format = source.image_format
        fingerprint = getattr(source, "fingerprint", None)
        return {
            "source": source.source,
            "example_shape": source.example_shape,
            "image_format": None if image_format is None else vars(image_format),
            "classes": names and {n: len(r) for n, r in zip(names, rows, strict=True)},
            "fingerprint": fingerprint and fingerprint(),
        }

    settings = (plan.train, plan.validation, plan.tests[0])
    plain: dict[str, Any] = json.loads(json.dumps({s.split: facts(s) for s in settings}))
    return plain


def check_same_data(folder: Path, before: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Checks that the data of a run are those that it began with.

    Args:
        folder: Path. The run folder.
        before: dict. What `data_facts` returned at the beginning. None for a run of tfmeta 0.1, of
            which `run.json` tells less.
        now: dict. What `data_facts` returns now.

    Raises:
        ValueError: If they differ: a run that went on would mix both.
    """
    if before is None:
        before = _old_facts(folder / DETAILS)
    # The classes come first: a change of them says most.
    keys = sorted(
        {key for facts in now.values() for key in facts}, key=lambda key: key != "classes"
    )
    for key in keys:
        for split, facts in now.items():
            old, value = before.get(split, {}).get(key), facts[key]
            if key in ("source", "image_format") and isinstance(old, dict) and value is not None:
                # A later version of tfmeta may record more.
                value = {name: value.get(name) for name in old}
            if old not in (None, value):
                raise ValueError(
                    f"The data of {folder} changed since it was trained: of the {split} split, "
                    f"{_change(key, old, value)}. Bring the old data back, or choose another "
                    "--output for a new run."
                )


def _old_facts(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    details = json.loads(file.read_text(encoding="utf-8"))
    facts = {"example_shape": details["example_shape"], "image_format": details["image_format"]}
    return {"train": facts, "validation": facts, "test": facts}


def _change(key: str, before: Any, now: Any) -> str:
    """Describes how a fact changed."""
    if key == "fingerprint":
        return f"the files or the version changed ({before[:40]}, now {str(now)[:40]})"
    if key != "classes" or now is None:
        return f"{key} was {before}, is {now}"
    for first, second, verb in ((before, now, "is gone"), (now, before, "is new")):
        if missing := [name for name in first if name not in second]:
            others = f" (and {len(missing) - 1} more)" if missing[1:] else ""
            return f"the class {missing[0]!r}{others} {verb}"
    for name, count in before.items():
        if now[name] != count:
            return f"the class {name!r} had {count} examples, has {now[name]}"
    return "the order of the classes changed"


def class_names(setting: Setting) -> list[str] | None:
    """Returns the names of the classes of a setting's data; None for regression tasks."""
    return getattr(setting.source, "class_names", None)


def class_count(setting: Setting) -> int | None:
    """Returns the number of classes of a setting's data; None for regression tasks."""
    names = class_names(setting)
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
