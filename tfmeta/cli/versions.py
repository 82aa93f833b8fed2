"""`tfmeta --version`."""

from __future__ import annotations

from importlib import metadata

import typer


def print_versions(wanted: bool) -> None:
    """Prints the versions, without importing the packages.

    Args:
        wanted: bool. Whether `--version` was given.

    Raises:
        typer.Exit: If it was.
    """
    if wanted:
        print(
            f"tfmeta {installed('tfmeta')} "
            f"(TensorFlow {installed('tensorflow')}, Keras {installed('keras')})"
        )
        raise typer.Exit


def installed(distribution: str) -> str:
    """Returns the version of an installed distribution; `"not installed"` without one.

    Args:
        distribution: str. The name, as `pip install` takes it.
    """
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
