"""Reading YAML files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as in YAML 1.2; PyYAML's YAML 1.1 reads it as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(file: Path) -> Any:
    """Returns the content of a YAML file.

    Args:
        file: Path. The file.

    Raises:
        ValueError: If the file is not valid YAML.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no valid YAML: {' '.join(str(error).split())}") from error
