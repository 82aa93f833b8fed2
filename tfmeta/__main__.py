"""Entry point of `tfmeta` and of `python -m tfmeta`."""

from __future__ import annotations

import sys

from tfmeta.quiet import quiet_tensorflow


def main() -> int:
    """Runs the command line.

    Returns:
        The exit code.
    """
    with quiet_tensorflow():
        from tfmeta.cli import main as run
    return run()


if __name__ == "__main__":
    sys.exit(main())
