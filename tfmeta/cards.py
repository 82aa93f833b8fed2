"""Model cards: what was measured, written between two marks of a README by a command alone."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tfmeta import plots, preset_files, presets
from tfmeta.evaluation import ways_and_shots
from tfmeta.files import write_json, write_text
from tfmeta.recipes import Recipe
from tfmeta.training import ADAPTATION_CURVE, EVALUATION, RECIPE

CARD = "README.md"
# What `tfmeta evaluate --recipe` measured, by the name of that recipe.
OF_ANOTHER = "evaluation_as_{}.json"
ROW_KEYS = ("paper", "floor", "shortfall", "episodes", "step", "as", "note")
BEGIN, END = "<!-- measured: written by a command -->", "<!-- end of measured -->"


def write_card(folder: str | os.PathLike[str], runs: Sequence[str | os.PathLike[str]] = ()) -> None:
    """Writes what was measured into a model's card, and draws the adaptation curve anew.

    Args:
        folder: The model's folder, with its `README.md`, in which two marks enclose what is written
            anew; without them, it is put at the end.
        runs: Run folders of the model's recipe, whose evaluations and pictures are taken over: that
            of the weights to be published, then those of other seeds. None if the evaluations in
            `folder` are to be written again.

    Raises:
        ValueError: If a run is of another recipe, or was not evaluated.
    """
    folder = Path(folder)
    if runs:
        _take_over(folder, [Path(run) for run in runs])
    if not (folder / EVALUATION).is_file():
        raise ValueError(f"{folder} has no {EVALUATION}: name a run to take it from.")
    evaluation = _read(folder / EVALUATION)
    if "by_inner_step" in evaluation:
        plots.adaptation_curve(evaluation, folder / ADAPTATION_CURVE)
    _replace(folder / CARD, measured(folder))


def write_zoo(models: str | os.PathLike[str], page: str | os.PathLike[str]) -> None:
    """Writes the table of all presets into a page, between two marks as in a card.

    Args:
        models: The folder of the models' folders, with `published.yaml`: the papers' numbers.
        page: A Markdown file.
    """
    _replace(Path(page), zoo(Path(models), os.path.relpath(models, Path(page).parent)))


def zoo(models: Path, link: str) -> str:
    """The table of all presets: what was measured, and what the papers report.

    Args:
        models: The folder of the models' folders.
        link: Where that is, seen from the page.
    """
    published = yaml.safe_load((models / "published.yaml").read_text(encoding="utf-8"))
    rows = []
    if published.keys() != set(presets.list_presets()):
        raise ValueError(
            f"{models / 'published.yaml'} must have rows for each preset and nothing else, at "
            f"least `NAME: [{{}}]`: it has {sorted(published)}, and the presets are "
            f"{presets.list_presets()}."
        )
    for name in presets.list_presets():
        for row in published[name]:
            if unknown := row.keys() - ROW_KEYS:
                raise ValueError(f"{name}: unknown {sorted(unknown)}; a row has {ROW_KEYS}.")
            evaluation = _evaluation_of(models / name, row)
            shown = evaluation["by_inner_step"][row["step"]] if "step" in row else evaluation
            parts = [_setting(evaluation)]
            if "step" in row:
                parts.append(f"{row['step']} step{'s' if row['step'] != 1 else ''}")
            if "as" in row:
                parts.append(f"on {evaluation['data']['name']}")
            if _meets_floor(shown, evaluation["metric"], row) == ("shortfall" in row):
                raise ValueError(
                    f"{name} was expected to reach {row.get('floor')} ({_setting(evaluation)}), "
                    f"and has {_cell(shown, evaluation['metric'])}: a row has a `shortfall`, which "
                    "says why, if and only if it misses its `floor`."
                )
            others = [str(row.get(key, "–")) for key in ("paper", "floor")]
            number = _cell(shown, evaluation["metric"])
            note = "; ".join(str(row[key]) for key in ("note", "shortfall") if key in row)
            link_to_card = f"[`{name}`]({link}/{name})"
            rows.append([link_to_card, ", ".join(parts), number, *others, note])
    head = ["preset", "test", "accuracy in %, or MSE", "paper", "floor", "note"]
    return "\n".join(_rows(head, rows))


def _evaluation_of(folder: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation of a preset that a row of `published.yaml` asks for."""
    evaluation = _read(folder / (OF_ANOTHER.format(row["as"]) if "as" in row else EVALUATION))
    wanted = {**evaluation["episodes"], **row.get("episodes", {})}
    for setting in [evaluation, *evaluation.get("also", [])]:
        if (setting["episodes"], setting["batch_norm"]) == (wanted, evaluation["batch_norm"]):
            return {**setting, "data": evaluation["data"]}
    raise ValueError(f"{folder.name} was not measured with {row['episodes']}.")


def _meets_floor(shown: Mapping[str, Any], metric: str, row: Mapping[str, Any]) -> bool:
    if "floor" not in row:
        return True
    return (
        100 * shown["mean"] >= row["floor"]
        if metric == "accuracy"
        else shown["mean"] <= row["floor"]
    )


def _replace(page: Path, content: str) -> None:
    text = page.read_text(encoding="utf-8")
    block = f"{BEGIN}\n\n{content}\n\n{END}"
    if BEGIN in text:
        text = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, text, flags=re.S)
    else:
        text = f"{text.rstrip()}\n\n{block}\n"
    write_text(page, text)


def measured(folder: Path) -> str:
    """What the evaluations in a model's folder say, as Markdown."""
    evaluations = [_read(path) for path in [folder / EVALUATION, *_of_other_seeds(folder)]]
    first = evaluations[0]
    settings = [first, *first.get("also", [])]
    lines = [
        f"Test {first['metric'] if first['metric'] == 'accuracy' else 'MSE'}: "
        f"**{_number(first)}** ({_setting(first)}; {first['n_episodes']:,} episodes, ± is the 95 % "
        "confidence interval of the mean).",
        "",
        *_table(settings),
        "",
        f"- Protocol: {first['protocol']}.",
    ]
    recipe = Recipe.load(folder)
    iterations = recipe.training.epochs * recipe.training.steps_per_epoch
    size = recipe.episodes.get("meta_batch_size")
    of_tasks = "" if size is None else f" of {size} task{'s' if size != 1 else ''}"
    lines.append(f"- Recipe: [{RECIPE}]({RECIPE}), {iterations:,} iterations{of_tasks}.")
    if len(evaluations) > 1:
        means = [evaluation["mean"] for evaluation in evaluations]
        of_each = "; ".join(f"{of_one['seed']}: {_number(of_one)}" for of_one in evaluations)
        lines.append(
            f"- Seeds: {of_each}. They spread "
            f"over {_plain(max(means) - min(means), first['metric'])}; each has test episodes of "
            "its own. Published is the first, whichever is best."
        )
    else:
        lines.append(f"- Seed {first['seed']}, one run.")
    if "training_seconds" in first:
        lines.append(
            f"- Training time: {first['training_seconds'] / 60:.1f} minutes, with validation."
        )
    if "machine" in first:
        versions = first["versions"]
        lines.append(
            f"- On {first['machine']}; Python {versions['python']}, TensorFlow "
            f"{versions['tensorflow']}, Keras {versions['keras']}."
        )
    if "n_parameters" in first:
        lines.append(f"- {first['n_parameters']:,} parameters.")
    if folder.name in presets.list_presets():
        digest = preset_files.read(presets.find(folder.name)).sha256
        lines.append(f"- SHA-256 of `{preset_files.LEARNER}`: `{digest}`.")
    for path in sorted(folder.glob(OF_ANOTHER.format("*"))):
        other = _read(path)
        lines += [
            "",
            f"Tested as `{other['as']}` is, on {_in_words(other['data'])}, after training on "
            f"{_in_words(other['trained_on'])} (`tfmeta evaluate {folder.name} --recipe "
            f"{other['as']}`; {other['n_episodes']:,} episodes):",
            "",
            *_table([other, *other.get("also", [])]),
        ]
    lines += [f"\n![{path.stem.replace('_', ' ')}]({path.name})" for path in _pictures(folder)]
    return "\n".join(lines)


def _take_over(folder: Path, runs: Sequence[Path]) -> None:
    recipe = Recipe.load(folder).to_dict()
    for run in runs:
        of_run = Recipe.load(run).to_dict()
        of_run["training"]["seed"] = recipe["training"]["seed"]
        if of_run != recipe:
            raise ValueError(f"{run} is no run of the recipe in {folder}.")
        if not (run / EVALUATION).is_file():
            raise ValueError(f"{run} has no {EVALUATION}: let `tfmeta train` finish it.")
    for path in _of_other_seeds(folder):
        path.unlink()
    write_json(folder / EVALUATION, _read(runs[0] / EVALUATION))
    for run in runs[1:]:
        evaluation = _read(run / EVALUATION)
        write_json(folder / f"evaluation_seed_{evaluation['seed']}.json", evaluation)
    for path in _pictures(runs[0]):
        # It shows examples of the data, which may not be ours to spread: who put it there, knows.
        if path.name != "episodes.png" or (folder / path.name).exists():
            shutil.copy(path, folder / path.name)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _of_other_seeds(folder: Path) -> list[Path]:
    return sorted(folder.glob("evaluation_seed_*.json"))


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        folder.glob("*.png"), key=lambda path: (path.name != "learning_curve.png", path.name)
    )


# === Tables ===


def _table(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """One row per setting; or, where inner steps were measured, one per number of them.

    The learner's own number of steps, which the mean is of, has a row in any case.
    """
    if not any("by_inner_step" in setting for setting in settings):
        rows = [(_setting(setting), _cell(setting, setting["metric"])) for setting in settings]
        return _rows(["setting", _unit(settings[0]["metric"])], rows)
    n_steps = max(len(setting.get("by_inner_step", [])) for setting in settings)
    cells = []
    for step in range(n_steps):
        row = [str(step)]
        for setting in settings:
            by_step = setting.get("by_inner_step", [])
            row.append(_cell(by_step[step], setting["metric"]) if step < len(by_step) else "")
        cells.append(row)
    own = settings[0].get("inner_steps", 0)
    if own >= n_steps:
        cells.append([str(own), *(_cell(setting, setting["metric"]) for setting in settings)])
    return _rows(["inner steps", *(_setting(setting) for setting in settings)], cells)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _setting(result: Mapping[str, Any]) -> str:
    mode = f", `{result['batch_norm']}`" if result.get("batch_norm") else ""
    return ways_and_shots(result["episodes"]) + mode


def _in_words(data: Mapping[str, Any]) -> str:
    return f"{data['name']} ({data['protocol']})" if "protocol" in data else str(data["name"])


def _unit(metric: str) -> str:
    return "accuracy, %" if metric == "accuracy" else "MSE"


def _cell(result: Mapping[str, Any], metric: str) -> str:
    if result["mean"] is None:
        return "not finite"
    if metric == "accuracy":
        return f"{100 * result['mean']:.2f} ± {100 * result['ci95']:.2f}"
    # Where a few tasks diverge, only the size of a number means anything.
    form = ".4f" if result["mean"] < 1000 else ".1e"
    return f"{result['mean']:{form}} ± {result['ci95']:{form}}"


def _number(result: Mapping[str, Any]) -> str:
    return _cell(result, result["metric"]) + (" %" if result["metric"] == "accuracy" else "")


def _plain(value: float, metric: str) -> str:
    return f"{100 * value:.2f} percentage points" if metric == "accuracy" else f"{value:.4f}"
