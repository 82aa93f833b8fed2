"""The tables of a run, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmeta.cards import table
from tfmeta.report.texts import in_numbers

MARKS = (
    "<!-- measured across domains: written by a command -->",
    "<!-- end of measured across domains -->",
)
NOT_BETTER = "†"
TRAINED_AS = {
    None: "–",
    "classification": "classification",
    "prototypical_network": "episodes",
    "ridge_head": "episodes",
    "maml": "episodes",
}

Results = Mapping[str, Any]
Row = Mapping[str, Any]


def markdown(results: Results) -> str:
    """Returns all tables.

    Args:
        results: mapping. What `run.results_of` returned.
    """
    parts = [*_summaries(results), *_gains(results), *_trainings(results)]
    for target in results["targets"]:
        parts += ["<details>", f"<summary>Tested on {target}</summary>", ""]
        for shot in results["shots"]:
            parts += _of_target(results, target, str(shot))
        parts += ["</details>", ""]
    return "\n".join(parts).rstrip()


def _summaries(results: Results) -> list[str]:
    head = ["method", "trained by", "batch norm"]
    for shot in results["shots"]:
        head += [f"{shot}-shot, own", f"{shot}-shot, other", f"{shot}-shot, rank own / other"]
    lines = []
    for is_inductive, title in ((True, "Inductive"), (False, "Transductive")):
        rows = [row for row in results["rows"] if row["is_inductive"] == is_inductive]
        rows.sort(key=lambda row: sum(each["rank_other"] for each in row["by_shot"].values()))
        cells = []
        for row in rows:
            line = [row["label"], TRAINED_AS[row["training"]], f"`{row['batch_norm']}`"]
            for entry in row["by_shot"].values():
                ranks = f"{entry['rank_own']:.1f} / {entry['rank_other']:.1f}"
                line += [_cell(entry["own"]), _cell(entry["other"]), ranks]
            cells.append(line)
        lines += [f"**{title}**", "", *table(head, cells), ""]
    return lines


def _gains(results: Results) -> list[str]:
    head = ["meta-learner", "shots", "own", "other", "better", "neither", "worse"]
    cells = []
    for row in results["rows"]:
        for shot, entry in row["by_shot"].items():
            if "gain" not in entry:
                continue
            gain = entry["gain"]
            signs = [sign for of_target in gain["sign"].values() for sign in of_target]
            counts = [str(signs.count(sign)) for sign in (1, 0, -1)]
            cells.append([row["label"], shot, _cell(gain["own"]), _cell(gain["other"]), *counts])
    return ["**Gain over SimpleShot on the same features**", "", *table(head, cells), ""]


def _trainings(results: Results) -> list[str]:
    by_source = results["training"]
    used = {row["training"] for row in results["rows"]}
    names = [name for name in results["settings"]["steps"] if name in used]
    cells = [
        [
            name.replace("_", " "),
            f"{results['settings']['steps'][name]:,}",
            *(f"{by_source[source][name]['cpu_seconds']} s" for source in results["sources"]),
        ]
        for name in names
    ]
    return [
        "**Training: steps, and CPU time**",
        "",
        *table(["training", "steps", *results["sources"]], cells),
        "",
    ]


def _of_target(results: Results, target: str, shot: str) -> list[str]:
    head = [f"{shot}-shot, trained on", *results["sources"]]
    cells = []
    for row in results["rows"]:
        entry = row["by_shot"][shot]
        signs: Sequence[int] = entry.get("gain", {}).get("sign", {}).get(target, ())
        marks = [f" {NOT_BETTER}" if sign < 1 else "" for sign in signs]
        values = [_cell(estimate) for estimate in entry["accuracy"][target]]
        marked = [v + m for v, m in zip(values, marks or [""] * len(values), strict=True)]
        mode = "" if row["is_inductive"] else ", transductive"
        cells.append([row["label"] + mode, *marked])
    return [*table(head, cells), ""]


def _cell(estimate: Mapping[str, float | None]) -> str:
    return in_numbers(estimate["mean"], estimate["ci95"], "accuracy")
