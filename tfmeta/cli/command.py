"""Runs commands: adds `--debug`, prints errors and warnings in one line, sets the exit code."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tfmeta import signals

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def add(app: typer.Typer, name: str, function: Callable[..., None]) -> None:
    """Adds a command to an app.

    Args:
        app: typer.Typer. The app.
        name: str. The command's name.
        function: Callable. What to run: its parameters are the command's, its docstring the help.
    """

    @functools.wraps(function)
    def run(*, debug: bool, **arguments: Any) -> None:
        call(function, arguments, debug)

    signature = inspect.signature(function, eval_str=True)
    option = inspect.Parameter(
        "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug
    )
    parameters = [*signature.parameters.values(), option]
    # Typer reads the signature for the defaults, and the annotations for the types.
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(name)(run)


def call(function: Callable[..., None], arguments: dict[str, Any], debug: bool) -> None:
    """Runs a command's function; prints an error in one line.

    Args:
        function: Callable. The function.
        arguments: dict. Its arguments by name.
        debug: bool. Whether to raise an error, which shows its traceback.

    Raises:
        typer.Exit: After an error (1) or a signal (128 and its number, so 130 after an interrupt).
    """
    try:
        with warnings.catch_warnings(), signals.raised():
            warnings.showwarning = _show
            function(**arguments)
    except KeyboardInterrupt as stop:
        number = signals.number_of(stop)
        text = " ".join(f"{signals.text_of(number)}. {stop}".split())
        print(f"tfmeta: {text}", file=sys.stderr)
        raise typer.Exit(128 + number) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        print(f"tfmeta: error: {in_one_line(error)}", file=sys.stderr)
        raise typer.Exit(1) from None


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    """Prints a warning with `warn`, without the line of code that raised it."""
    warn(" ".join(str(message).split()))


def in_one_line(error: Exception) -> str:
    """Returns an error's message, without line breaks or an error number.

    Args:
        error: Exception. The error.

    Example:

    >>> in_one_line(FileNotFoundError(2, "No such file or directory", "models/published.yaml"))
    'No such file or directory: models/published.yaml'
    """
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split()) or type(error).__name__


def warn(text: str) -> None:
    """Prints a warning to stderr.

    Args:
        text: str. One sentence or two.
    """
    print(f"tfmeta: warning: {text}", file=sys.stderr)
