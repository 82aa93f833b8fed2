"""Prints pip's constraints for the oldest versions that setup.cfg admits: `NAME==BOUND` lines.

`make test-oldest` installs these, so that a bound is one that was tried.
"""

import configparser
import re
import sys
from pathlib import Path

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"


def constraints(text: str) -> list[str]:
    """The constraints for the content of a setup.cfg.

    Raises:
        ValueError: If a requirement has no lower bound, and so no oldest version.
    """
    config = configparser.ConfigParser()
    config.read_string(text)
    lines = config["options"]["install_requires"].splitlines()
    found = []
    for line in filter(None, map(str.strip, lines)):
        match = re.fullmatch(r"([\w.-]+)>=([\w.]+)", line)
        if match is None:
            raise ValueError(f"A requirement must be NAME>=VERSION; setup.cfg has {line!r}.")
        found.append(f"{match[1]}=={match[2]}")
    return found


if __name__ == "__main__":
    sys.stdout.write("\n".join(constraints(SETUP.read_text(encoding="utf-8"))) + "\n")
