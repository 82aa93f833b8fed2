"""The table of all presets: what was measured, and what the papers report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tfmeta import zoo
from tfmeta.cards import OF_ANOTHER, cell, replace_measured, setting, table
from tfmeta.report import Estimate, Evaluation, Report
from tfmeta.training import EVALUATION

PUBLISHED = "published.yaml"
ROW_KEYS = ("paper", "floor", "shortfall", "episodes", "step", "as", "note")


def write_zoo(models: str | os.PathLike[str], page: str | os.PathLike[str]) -> None:
    """Writes the table of all presets into a page, between two marks as in a card.

    Args:
        models: str or path. The folder of the models' folders, with `published.yaml`: the rows, and
            the papers' numbers.
        page: str or path. A Markdown file.

    Raises:
        ValueError: If `published.yaml` does not fit the presets and their evaluations.
    """
    replace_measured(
        Path(page), zoo_table(Path(models), os.path.relpath(models, Path(page).parent))
    )


def zoo_table(models: Path, link: str) -> str:
    """Returns the table of all presets, as Markdown.

    Args:
        models: Path. The folder of the models' folders.
        link: str. That folder as seen from the page.

    Raises:
        ValueError: If `published.yaml` does not fit the presets and their evaluations.
    """
    published = yaml.safe_load((models / PUBLISHED).read_text(encoding="utf-8"))
    names = zoo.list_presets()
    if published.keys() != set(names):
        raise ValueError(
            f"{models / PUBLISHED} must have rows for each preset and nothing else, at least "
            f"`NAME: [{{}}]`: it has {sorted(published)}, and the presets are {names}."
        )
    rows = [_row(models, link, name, row) for name in names for row in published[name]]
    head = ["preset", "test", "accuracy in %, or MSE", "paper", "floor", "note"]
    return "\n".join(table(head, rows))


def _row(models: Path, link: str, name: str, row: Mapping[str, Any]) -> list[str]:
    if unknown := row.keys() - ROW_KEYS:
        raise ValueError(f"{name}: unknown {sorted(unknown)}; a row has {ROW_KEYS}.")
    file = models / name / (OF_ANOTHER.format(row["as"]) if "as" in row else EVALUATION)
    report = Report.read(file)
    evaluation = _evaluation(name, report, row)
    estimate = evaluation.steps[row["step"]] if "step" in row else evaluation.estimate
    parts = [setting(evaluation)]
    if "step" in row:
        parts.append(f"{row['step']} step{'s' if row['step'] != 1 else ''}")
    if "as" in row:
        parts.append(f"on {(report.data or {})['name']}")
    result = cell(estimate, evaluation.metric)
    if _meets_floor(estimate, evaluation.metric, row) == ("shortfall" in row):
        raise ValueError(
            f"{name} was expected to reach {row.get('floor')} ({setting(evaluation)}), and has "
            f"{result}: a row has a `shortfall`, which says why, if and only if it misses its "
            "`floor`."
        )
    note = "; ".join(str(row[key]) for key in ("note", "shortfall") if key in row)
    others = [str(row.get(key, "–")) for key in ("paper", "floor")]
    return [f"[`{name}`]({link}/{name})", ", ".join(parts), result, *others, note]


def _evaluation(name: str, report: Report, row: Mapping[str, Any]) -> Evaluation:
    """Returns the evaluation that a row of `published.yaml` asks for."""
    wanted = {**(report.own.episodes or {}), **row.get("episodes", {})}
    for evaluation in report.evaluations:
        if (evaluation.episodes, evaluation.batch_norm) == (wanted, report.own.batch_norm):
            return evaluation
    raise ValueError(f"{name} was not measured with {row['episodes']}.")


def _meets_floor(estimate: Estimate, metric: str, row: Mapping[str, Any]) -> bool:
    """Returns whether a result is good enough. One that is not finite never is."""
    if "floor" not in row:
        return True
    if metric == "accuracy":
        return 100 * estimate.mean >= row["floor"]
    return estimate.mean <= row["floor"]
