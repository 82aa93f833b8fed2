"""`tfmeta tune`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from tfmeta.cli.options import DataDir, Seed
from tfmeta.cli.startup import start_tensorflow
from tfmeta.cli.tables import print_table


def tune(
    recipe: Annotated[
        str,
        typer.Argument(help="A folder with a recipe.yaml, or a YAML file.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option(help="The folder of the search, to write.", show_default=False)
    ],
    trials: Annotated[int, typer.Option(help="The number of trials.")] = 20,
    steps: Annotated[
        int, typer.Option(help="Training steps of a trial, with the recipe's meta-batch size.")
    ] = 200,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="A hyper-parameter to search; repeat it for several. All, if not given.",
            show_default=False,
        ),
    ] = None,
    past: Annotated[
        list[Path] | None,
        typer.Option(
            help="The folder of an earlier search to start from; repeat it for several.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    seed: Seed = None,
) -> None:
    """Search a recipe's hyper-parameters by short trainings.

    Trials are measured on validation episodes. To resume a search that was interrupted, or to go on
    with more trials, repeat the command.
    """
    from tfmeta.recipes import Recipe

    if importlib.util.find_spec("keras_tuner") is None:
        raise ImportError('tfmeta tune needs KerasTuner: pip install "tfmeta[tuning]".')
    # Read the recipe before TensorFlow starts, to report a mistake in it at once.
    chosen = Recipe.load(recipe)
    if seed is not None:
        chosen = chosen.with_training(seed=seed)
    start_tensorflow()
    from tfmeta import tuning

    best = tuning.tune(
        chosen,
        output,
        trials=trials,
        steps=steps,
        search=search or None,
        past=past or (),
        data_dir=data_dir,
    )
    head, *rows = tuning.read_table(output)
    print_table(head, rows)
    print(
        f"The best values are in {output / tuning.BEST}, a recipe for `tfmeta train`: {best.name}."
    )
