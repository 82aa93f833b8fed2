"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfmeta.modes import BatchNorm


def preset_names(incomplete: str) -> list[str]:
    """Completes the name of a preset in the shell.

    Args:
        incomplete: str. What was typed so far.
    """
    from tfmeta.cli.sources import list_presets

    return [name for name in list_presets() if name.startswith(incomplete)]


SOURCE_HELP = "A run folder, or a preset: its name, folder or address."
Source = Annotated[
    str,
    typer.Argument(help=SOURCE_HELP, show_default=False, autocompletion=preset_names),
]
RunFolders = Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="The directory of TensorFlow Datasets; also the one that holds your folder "
        "mini_imagenet.",
        show_default=False,
    ),
]
BatchNormMode = Annotated[
    BatchNorm | None,
    typer.Option(
        help="The mode of batch norm, instead of the one that the learner was trained in.",
        show_default=False,
    ),
]
AllowTransductive = Annotated[
    bool,
    typer.Option(
        "--allow-transductive",
        help="Accept that an answer depends on the other queries of its request.",
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="The seed, instead of the recipe's.", show_default=False)
]
