"""Entry point of `tfmeta` and of `python -m tfmeta`."""

from __future__ import annotations

import sys

from tfmeta import signals


def main() -> int:
    """Runs the command of this process; see `tfmeta.cli.main`.

    Returns:
        The exit code.
    """
    with signals.exit_at_once():
        # Imported late, so that an interrupt of the import shows no traceback.
        from tfmeta import cli

        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
