"""The command line: `tfmeta train | tune | evaluate | adapt | predict | export | serving | …`.

TensorFlow takes seconds to import. No module here imports it at the top, directly or indirectly. A
command imports it when it runs, after all checks that do not need it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from tfmeta.cli.adapt import adapt, predict
from tfmeta.cli.command import add
from tfmeta.cli.compare import compare, plot
from tfmeta.cli.evaluate import evaluate
from tfmeta.cli.info import info, list_presets
from tfmeta.cli.publish import card, publish, zoo
from tfmeta.cli.replay import replay
from tfmeta.cli.serve import check, configure, export, path, run
from tfmeta.cli.train import train
from tfmeta.cli.tune import tune
from tfmeta.cli.versions import print_versions

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
serving = typer.Typer(no_args_is_help=True, help="Check servables, or serve them.")


@app.callback()
def _tfmeta(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=print_versions,
            is_eager=True,
            help="Show the versions of tfmeta, TensorFlow and Keras, and exit.",
        ),
    ] = False,
) -> None:
    """Meta-train, evaluate, adapt and serve few-shot learners."""


add(app, "train", train)
add(app, "replay", replay)
add(app, "tune", tune)
add(app, "evaluate", evaluate)
add(app, "adapt", adapt)
add(app, "predict", predict)
add(app, "export", export)
app.add_typer(serving, name="serving")
add(serving, "check", check)
add(serving, "run", run)
add(serving, "configure", configure)
add(serving, "path", path)
add(app, "list", list_presets)
add(app, "info", info)
add(app, "compare", compare)
add(app, "plot", plot)
add(app, "publish", publish)
add(app, "card", card)
add(app, "zoo", zoo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: Sequence of str. The command and its arguments. Defaults to None: those of the
            process.

    Returns:
        The exit code: 0; 1 after an error, printed to stderr; 2 if the arguments are wrong;
        130 after an interrupt, and 128 and its number after another signal.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names of classes and files may have characters that the terminal's encoding lacks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        get_command(app)(args=None if arguments is None else list(arguments), prog_name="tfmeta")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
