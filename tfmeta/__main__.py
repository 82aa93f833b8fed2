"""Entry point of `tfmeta` and of `python -m tfmeta`."""

from __future__ import annotations

import sys

from tfmeta.cli import main

if __name__ == "__main__":
    sys.exit(main())
