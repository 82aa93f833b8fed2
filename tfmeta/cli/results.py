"""Shows evaluations, just measured or read from files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmeta.cli.sources import EVALUATION

if TYPE_CHECKING:
    from tfmeta.report import Report


def print_report(report: Report) -> None:
    """Prints the results of each setting.

    Args:
        report: Report. What `training.measure` returned.
    """
    for evaluation in report.evaluations:
        if evaluation.changes:
            changes = (f"{name} {value}" for name, value in evaluation.changes.items())
            print("\n" + ", ".join(changes) + ":")
        for step, estimate in enumerate(evaluation.steps):
            note = " (before adaptation)" if step == 0 else ""
            print(
                f"after {step} inner step{'' if step == 1 else 's'}: {evaluation.metric} "
                f"{estimate.mean:.4f} ± {estimate.ci95:.4f}{note}"
            )
        split = (report.split or "").capitalize()
        print(f"{split}: {evaluation}, ± is the 95 % confidence interval.")


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """Reads the evaluation in a folder of a run or a preset.

    Args:
        folder: Path. The folder.

    Returns:
        The content of its `evaluation.json`; None without one.
    """
    from tfmeta import preset_files

    file = folder / EVALUATION
    if file.is_file() and (folder / preset_files.PRESET).is_file():
        preset_files.check(folder, part=EVALUATION)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def settings_of(evaluation: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the results in an evaluation by setting, the recipe's own first.

    Args:
        evaluation: Mapping. The content of an `evaluation.json`.
    """
    return {name_of(each): each for each in [dict(evaluation), *evaluation.get("also", [])]}


def name_of(result: Mapping[str, Any]) -> str:
    """Names the setting of a result.

    Args:
        result: Mapping. An evaluation, or one of its `also`.

    Example:

    >>> name_of({"episodes": {"n_way": 5, "n_shot": 1}, "batch_norm": "support"})
    '5-way 1-shot, support'
    """
    episodes = result["episodes"]
    ways = f"{in_words(episodes['n_way'])}-way " if "n_way" in episodes else ""
    mode = f", {result['batch_norm']}" if result.get("batch_norm") else ""
    return f"{ways}{in_words(episodes['n_shot'])}-shot{mode}"


def in_words(value: Any) -> str:
    """Returns a number, or a range `[least, most]`, as text.

    Args:
        value: int or sequence of two int.

    Example:

    >>> in_words([5, 20])
    '5 to 20'
    """
    return " to ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def in_numbers(mean: float | None, interval: float | None, metric: str) -> str:
    """Returns a mean and its half-interval as text.

    Args:
        mean: float, or None if it is not finite.
        interval: float or None. The half-interval; None if it is not finite.
        metric: str. `"accuracy"`, a share of 1, is shown in percent; others as they are.

    Example:

    >>> in_numbers(0.98123, 0.0021, "accuracy")
    '98.12 ± 0.21 %'
    """
    if mean is None or interval is None or not math.isfinite(mean):
        return "not finite"
    if metric == "accuracy":
        return f"{100 * mean:.2f} ± {100 * interval:.2f} %"
    # If a few tasks diverge, only the order of magnitude is meaningful.
    form = ".4f" if mean < 1000 else ".1e"
    return f"{metric.upper()} {mean:{form}} ± {interval:{form}}"
