"""Shows evaluations, just measured or read from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmeta.cli.sources import EVALUATION, read_json
from tfmeta.report.texts import in_numbers, ways_and_shots

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

    Raises:
        ValueError: If the file is broken, or was altered in a preset.
    """
    from tfmeta import preset_files

    file = folder / EVALUATION
    if not file.is_file():
        return None
    if (folder / preset_files.PRESET).is_file():
        preset_files.check(folder, part=EVALUATION)
    content = read_json(file)
    try:
        for result in settings_of(content).values():
            with_unit(result["mean"], result["ci95"], result["metric"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is broken: it is no evaluation that tfmeta wrote.") from error
    return content


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
    mode = f", {result['batch_norm']}" if result.get("batch_norm") else ""
    return ways_and_shots(result["episodes"]) + mode


def with_unit(mean: float | None, interval: float | None, metric: str) -> str:
    """Returns a mean and its half-interval as text.

    Args:
        mean: float, or None if it is not finite.
        interval: float or None. The half-interval; None if it is not finite.
        metric: str. `"accuracy"`, a share of 1, is shown in percent; others as they are.

    Example:

    >>> with_unit(0.98123, 0.0021, "accuracy")
    '98.12 ± 0.21 %'
    """
    numbers = in_numbers(mean, interval, metric)
    if numbers == "not finite":
        return numbers
    return f"{numbers} %" if metric == "accuracy" else f"{metric.upper()} {numbers}"
