"""Calls of commands: `--debug`, one line for an error or a warning, and the exit code."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

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
    """Runs a command's function; tells an error in one line.

    Args:
        function: Callable. The function.
        arguments: dict. Its arguments by name.
        debug: bool. Whether to let an error pass, for its traceback.

    Raises:
        typer.Exit: After an error (1) or an interrupt (130).
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            function(**arguments)
    except KeyboardInterrupt:
        print("tfmeta: interrupted (`tfmeta train` resumes if called again).", file=sys.stderr)
        raise typer.Exit(130) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        print(f"tfmeta: error: {in_one_line(error)}", file=sys.stderr)
        raise typer.Exit(1) from None


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    """Prints a warning as `warn` does: without the line of code that it comes from."""
    warn(" ".join(str(message).split()))


def in_one_line(error: Exception) -> str:
    """Returns what an error says, without line breaks or an error number.

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
