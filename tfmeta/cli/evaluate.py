"""`tfmeta evaluate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from tfmeta.cli.command import warn
from tfmeta.cli.options import DataDir, Seed, Source
from tfmeta.cli.results import print_report
from tfmeta.cli.sources import locate, open_learner, recipe_of
from tfmeta.cli.startup import start_tensorflow


def evaluate(
    source: Source,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Test as this recipe or preset is tested, instead of as the learner's own.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    split: Annotated[
        Literal["train", "validation", "test", "all"],
        typer.Option(help="The classes to test on; `all` is for a folder of images."),
    ] = "test",
    n_episodes: Annotated[
        int | None,
        typer.Option(help="The number of episodes, instead of the recipe's.", show_default=False),
    ] = None,
    inner_steps: Annotated[
        int | None,
        typer.Option(help="Measure after 0, 1, … this many inner steps.", show_default=False),
    ] = None,
    seed: Seed = None,
    output: Annotated[
        Path | None, typer.Option(help="A JSON file to write.", show_default=False)
    ] = None,
) -> None:
    """Measure a trained learner on episodes.

    The learner is tested in the recipe's own setting, and on the test split in the further settings
    of its evaluation's `also`.
    """
    # Before TensorFlow starts: a mistyped name is told at once.
    found = locate(source)
    chosen = recipe_of(recipe or source)
    start_tensorflow()
    from tfmeta import training
    from tfmeta.data.names import resolve
    from tfmeta.recipes.plan import settings

    learner, about = open_learner(found)
    trained_on = None if about.recipe is None else about.recipe["data"]
    data = chosen.data.given()
    if split == "all" and ("name" not in data or resolve(data["name"]).kind != "folder"):
        raise ValueError(
            f"--split all is for a folder of images, but the data of {chosen.name} are "
            f"{chosen.data.name!r}: give --split test."
        )
    of_all = split == "all" or data.get("split") == "all"
    if of_all and trained_on is not None and trained_on.get("name") == data["name"]:
        warn("The test includes the classes that the learner was trained on.")
    tests = settings(chosen, split, data_dir, seed)
    example_shape = list(tests[0].source.example_shape)
    if about.example_shape not in (None, example_shape):
        raise ValueError(
            f"{source} was trained on examples of shape {about.example_shape}, but those of "
            f"{chosen.name} have the shape {example_shape}."
        )
    report = training.measure(learner, tests, n_episodes, inner_steps)
    if recipe:
        report = dataclasses.replace(report, tested_as=chosen.name, trained_on=trained_on)
    print_report(report)
    if output:
        report.write(output)
