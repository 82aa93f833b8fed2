"""Model cards: the measured results in a README, written between two marks by a command."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfmeta import plots, preset_files, zoo
from tfmeta.files import write_text
from tfmeta.recipes import Recipe
from tfmeta.report import Estimate, Evaluation, Report
from tfmeta.report.texts import in_numbers
from tfmeta.training import ADAPTATION_CURVE, EVALUATION, RECIPE

CARD = "README.md"
# Results of `tfmeta evaluate --recipe`, by the name of that recipe.
OF_ANOTHER = "evaluation_as_{}.json"
BEGIN, END = "<!-- measured: written by a command -->", "<!-- end of measured -->"


def write_card(folder: str | os.PathLike[str], runs: Sequence[str | os.PathLike[str]] = ()) -> None:
    """Writes the measured results into a model's card, and redraws the adaptation curve.

    Args:
        folder: str or path. The model's folder. Its `README.md` has two marks, and the text between
            them is replaced; without the marks, the results are added at the end.
        runs: sequence of str or path. Run folders of the model's recipe, whose evaluations and
            pictures are copied: first the run whose weights are published, then those of other
            seeds. Defaults to none: the evaluations in `folder` are written again.

    Raises:
        ValueError: If a run is of another recipe, or was not evaluated.
    """
    folder = Path(folder)
    if runs:
        _copy_results(folder, [Path(run) for run in runs])
    if not (folder / EVALUATION).is_file():
        raise ValueError(f"{folder} has no {EVALUATION}: name a run to take it from.")
    report = Report.read(folder / EVALUATION)
    if report.own.steps:
        plots.adaptation_curve(report.evaluations, folder / ADAPTATION_CURVE, report.inner_steps)
    replace_measured(folder / CARD, measured(folder))


def replace_measured(page: Path, content: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Replaces the text between two marks of a page, or adds it at the end.

    Args:
        page: Path. A Markdown file.
        content: str. The new content, without the marks.
        marks: (str, str). What stands before and after it, as a page may have several such parts.
            Defaults to the marks of a card.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = marks
    block = f"{begin}\n\n{content}\n\n{end}"
    if begin in text:
        text = re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: block, text, flags=re.S)
    else:
        text = f"{text.rstrip()}\n\n{block}\n"
    write_text(page, text)


def measured(folder: Path) -> str:
    """Returns the results in a model's folder, as Markdown.

    Args:
        folder: Path. The model's folder.
    """
    report = Report.read(folder / EVALUATION)
    own = report.own
    lines = [
        f"Test {own.metric if own.metric == 'accuracy' else 'MSE'}: "
        f"**{number(own)}** ({setting(own)}; {own.n_episodes:,} episodes, ± is the 95 % "
        "confidence interval of the mean).",
        "",
        *_results(report),
        "",
        f"- Protocol: {report.protocol}.",
        _recipe_line(Recipe.load(folder)),
        _seed_line(report, [Report.read(path) for path in _of_other_seeds(folder)]),
    ]
    if report.training_seconds is not None:
        lines.append(
            f"- Training time: {report.training_seconds / 60:.1f} minutes, with validation."
        )
    if report.machine is not None and report.versions is not None:
        versions = report.versions
        lines.append(
            f"- Machine: {report.machine}; Python {versions['python']}, TensorFlow "
            f"{versions['tensorflow']}, Keras {versions['keras']}."
        )
    if report.n_parameters is not None:
        lines.append(f"- Parameters: {report.n_parameters:,}.")
    if folder.name in zoo.list_presets():
        digest = preset_files.read(zoo.find(folder.name)).sha256
        lines.append(f"- SHA-256 of `{preset_files.LEARNER}`: `{digest}`.")
    for path in sorted(folder.glob(OF_ANOTHER.format("*"))):
        lines += ["", *_of_another_recipe(folder.name, Report.read(path))]
    lines += [f"\n![{path.stem.replace('_', ' ')}]({path.name})" for path in _pictures(folder)]
    return "\n".join(lines)


# === Lines of a card ===


def _recipe_line(recipe: Recipe) -> str:
    iterations = recipe.training.epochs * recipe.training.steps_per_epoch
    if not iterations:
        return f"- Recipe: [{RECIPE}]({RECIPE}). Nothing is trained."
    size = recipe.episodes.meta_batch_size
    tasks = f"{size} task{'s' if size != 1 else ''}"
    return f"- Recipe: [{RECIPE}]({RECIPE}), {iterations:,} iterations of {tasks}."


def _seed_line(report: Report, others: Sequence[Report]) -> str:
    if not others:
        return f"- Seed {report.seed}, one run."
    runs = [report, *others]
    results = "; ".join(f"{run.seed}: {number(run.own)}" for run in runs)
    means = [run.own.mean for run in runs]
    spread = max(means) - min(means)
    words = f"{100 * spread:.2f} percentage points"
    if report.own.metric != "accuracy":
        words = f"{spread:.4f}"
    return (
        f"- Seeds: {results}. The means spread over {words}. Each seed has its own test episodes. "
        "The first seed is published, whichever is best."
    )


def _of_another_recipe(name: str, report: Report) -> list[str]:
    trained = f", after training on {_data(report.trained_on)}" if report.trained_on else ""
    return [
        f"Tested as `{report.tested_as}` is, on {_data(report.data or {})}{trained} "
        f"(`tfmeta evaluate {name} --recipe {report.tested_as}`; {report.own.n_episodes:,} "
        "episodes):",
        "",
        *_results(report),
    ]


def _data(data: Mapping[str, Any]) -> str:
    name = str(data.get("name", "folders of its own"))
    return f"{name} ({data['protocol']})" if "protocol" in data else name


# === Files ===


def _copy_results(folder: Path, runs: Sequence[Path]) -> None:
    """Copies the evaluations and pictures of runs into a model's folder."""
    recipe = Recipe.load(folder)
    for run in runs:
        if Recipe.load(run).with_training(seed=recipe.training.seed).to_dict() != recipe.to_dict():
            raise ValueError(f"{run} is no run of the recipe in {folder}.")
        if not (run / EVALUATION).is_file():
            raise ValueError(f"{run} has no {EVALUATION}: let `tfmeta train` finish it.")
    for path in _of_other_seeds(folder):
        path.unlink()
    Report.read(runs[0] / EVALUATION).write(folder / EVALUATION)
    for run in runs[1:]:
        report = Report.read(run / EVALUATION)
        report.write(folder / f"evaluation_seed_{report.seed}.json")
    for path in _pictures(runs[0]):
        # This picture shows examples of the data, which we may not have the right to publish. So
        # it is copied only if the folder already has such a picture.
        if path.name != "episodes.png" or (folder / path.name).exists():
            shutil.copy(path, folder / path.name)


def _of_other_seeds(folder: Path) -> list[Path]:
    return sorted(folder.glob("evaluation_seed_*.json"))


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        folder.glob("*.png"), key=lambda path: (path.name != "learning_curve.png", path.name)
    )


# === Tables ===


def _results(report: Report) -> list[str]:
    """Returns a table with a row per number of inner steps if measured, else per setting.

    The learner's own number of steps, after which the mean was measured, always has a row.
    """
    evaluations, metric = report.evaluations, report.own.metric
    n_steps = max(len(evaluation.steps) for evaluation in evaluations)
    if not n_steps:
        rows = [(setting(each), cell(each.estimate, metric)) for each in evaluations]
        return table(["setting", "accuracy, %" if metric == "accuracy" else "MSE"], rows)
    cells = [
        [
            str(step),
            *(cell(e.steps[step], metric) if step < len(e.steps) else "" for e in evaluations),
        ]
        for step in range(n_steps)
    ]
    own_steps = report.inner_steps or 0
    if own_steps >= n_steps:
        cells.append([str(own_steps), *(cell(each.estimate, metric) for each in evaluations)])
    return table(["inner steps", *(setting(each) for each in evaluations)], cells)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def setting(evaluation: Evaluation) -> str:
    """Returns the setting of an evaluation, as in "5-way 1-shot, `support`"."""
    mode = f", `{evaluation.batch_norm}`" if evaluation.batch_norm else ""
    return evaluation.ways_and_shots + mode


def cell(estimate: Estimate, metric: str) -> str:
    """Returns an estimate as text for a table; accuracies are in %."""
    return in_numbers(estimate.mean, estimate.ci95, metric)


def number(evaluation: Evaluation) -> str:
    """Returns the mean of an evaluation with its unit."""
    unit = " %" if evaluation.metric == "accuracy" else ""
    return cell(evaluation.estimate, evaluation.metric) + unit
