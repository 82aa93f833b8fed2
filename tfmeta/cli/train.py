"""`tfmeta train`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tfmeta.cli.options import DataDir, Seed
from tfmeta.cli.results import print_report
from tfmeta.cli.sources import EVALUATION, is_transductive
from tfmeta.cli.startup import start_tensorflow


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="A folder with a recipe.yaml, or a YAML file.", show_default=False),
    ],
    output: Annotated[Path, typer.Option(help="The run folder to write.", show_default=False)],
    data_dir: DataDir = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="The number of epochs, instead of the recipe's.", show_default=False),
    ] = None,
    seed: Seed = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            help="Save within epochs, too: every so many steps (100) or seconds (60s).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Meta-train and test a learner by a recipe.

    To resume a run that was interrupted, repeat the command.
    """
    from tfmeta.recipes import Recipe

    # Read the recipe before TensorFlow starts, to report a mistake in it at once.
    chosen = Recipe.load(recipe)
    given = {"epochs": epochs, "seed": seed}
    changes = {name: value for name, value in given.items() if value is not None}
    chosen = chosen.with_training(**changes)
    start_tensorflow()
    from tfmeta import training

    every: int | str | None = checkpoint_every
    if checkpoint_every is not None and checkpoint_every.isdecimal():
        every = int(checkpoint_every)
    print_report(training.train(chosen, output, data_dir, every))
    pictures = sorted(picture.name for picture in output.glob("*.png"))
    print(f"Written to {output}: {', '.join([EVALUATION, *pictures])} …")
    run = shlex.quote(str(output))
    mode = " --batch-norm support" if is_transductive(training.load_learner(output)) else ""
    print(
        f"Next: tfmeta adapt {run} --support FOLDER_OR_CSV --output TASK{mode}\n"
        f"      tfmeta export {run} --output servables/{shlex.quote(chosen.name)}{mode}\n"
        f"      tensorboard --logdir {run}/logs"
    )
