"""`tfmeta list` and `tfmeta info`."""

from __future__ import annotations

import sys
from typing import Any

from tfmeta.cli.facts import Facts
from tfmeta.cli.options import Source
from tfmeta.cli.results import settings_of, with_unit
from tfmeta.cli.sources import list_presets as names_of_presets
from tfmeta.cli.sources import locate
from tfmeta.cli.tables import print_table


def list_presets() -> None:
    """List the presets.

    A terminal shows a table; a pipe gets the names alone.
    """
    names = names_of_presets()
    if not sys.stdout.isatty():
        print(*names, sep="\n")
        return
    presets = [Facts.read(locate(name)) for name in names]
    print_table(
        ["name", "learner", "example", "ways", "test", "size"],
        [[p.name, p.learner, p.examples, p.ways, p.result, p.size] for p in presets],
    )


def info(source: Source) -> None:
    """Show details of a preset or a run."""
    facts = Facts.read(locate(source))
    about = facts.about
    recipe: dict[str, Any] = about["recipe"] or {}
    rows = {
        "name": facts.name,
        "folder": facts.source.folder,
        "learner": facts.learner,
        "options": in_a_line(facts.options),
        "network": in_a_line(recipe.get("network")),
        "batch norm": facts.batch_norm,
        "ways": facts.ways,
        "example": facts.examples,
        "image format": in_a_line(about["image_format"]),
        "data": in_a_line(recipe.get("data")),
        **{f"{split} classes": names for split, names in facts.classes.items()},
        "episodes": in_a_line(recipe.get("episodes")),
        "training": in_a_line(recipe.get("training")),
        "protocol": recipe.get("protocol"),
        "size": facts.size,
        "sha256": about.get("sha256"),
        "tfmeta": about["tfmeta"],
        "servable": facts.servable,
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        if value is not None:
            print(f"{name:<{width}}  {value}")
    results = {} if facts.evaluation is None else settings_of(facts.evaluation)
    for i, (setting, result) in enumerate(results.items()):
        numbers = with_unit(result["mean"], result["ci95"], result["metric"])
        print(f"{'test' if i == 0 else '':<{width}}  {numbers} ({setting})")


def in_a_line(options: dict[str, Any] | None) -> str | None:
    """Returns options in one line of text; None if there are none.

    Args:
        options: dict, or None.

    Example:

    >>> in_a_line({"n_way": 5, "optimizer": {"class_name": "Adam"}})
    'n_way 5, optimizer (class_name Adam)'
    """
    if options is None:
        return None
    return ", ".join(
        f"{name} ({in_a_line(value)})" if isinstance(value, dict) else f"{name} {value}"
        for name, value in options.items()
    )
