"""A folder of npm packages in the Iconify format, with drawings that are made up."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmeta.data.iconify import SCOPE


def write_package(
    folder: Path,
    name: str,
    version: str,
    icons: Mapping[str, Any],
    *,
    aliases: Mapping[str, Any] | None = None,
    codes: Mapping[str, str] | None = None,
    groups: Mapping[str, list[str]] | None = None,
    styles: Mapping[str, str] | None = None,
    **size: int,
) -> None:
    """Writes a package. Each icon is a body of SVG, or a dict with one."""
    content = {
        "prefix": name,
        "icons": {n: {"body": i} if isinstance(i, str) else i for n, i in icons.items()},
        "aliases": aliases or {},
        **size,
    }
    metadata = {"categories": groups or {}, "suffixes": styles or {}}
    package = folder / SCOPE / name
    package.mkdir(parents=True)
    for file, value in (
        ("package.json", {"version": version}),
        ("icons.json", content),
        ("chars.json", codes or {}),
        ("metadata.json", metadata),
    ):
        (package / file).write_text(json.dumps(value), encoding="utf-8")


def circle(radius: float, fill: str = "currentColor") -> str:
    """A disc in the middle of a drawing of 16×16."""
    return f'<circle cx="8" cy="8" r="{radius}" fill="{fill}"/>'


def bars(number: int, width: float = 1) -> str:
    """The bits of a number as upright bars in a drawing of 16×16."""
    return "".join(
        f'<path d="M{2 * bit} 2h{width}v12h-{width}z"/>' for bit in range(8) if number >> bit & 1
    )
