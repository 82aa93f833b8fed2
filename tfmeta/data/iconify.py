"""Reads sets of SVG drawings from npm packages in the Iconify format, in a folder of the user."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Where npm puts the packages, in the folder in which it is run.
SCOPE = "node_modules/@iconify-json"


class Package(NamedTuple):
    """A set of drawings: an npm package `@iconify-json/<name>`.

    Attributes:
        name: str. Name of the set.
        version: str. The version of the package that the published data were made of.
        licence: str. Licence of the drawings, as an SPDX identifier.
        author: str. Whom to name as their author.
        vendor: str. Whose drawings they are; sets with shared drawings have one vendor.
    """

    name: str
    version: str
    licence: str
    author: str
    vendor: str


def npm_command(packages: Sequence[Package], folder: str = "FOLDER") -> str:
    """Returns the command that installs packages.

    Args:
        packages: sequence of Package. The sets.
        folder: str. The folder to install them in.

    Example:

    >>> npm_command([Package("noto", "1.2.9", "Apache-2.0", "Google Inc", "noto")])
    'npm install --ignore-scripts --prefix FOLDER @iconify-json/noto@1.2.9'
    """
    names = " ".join(f"@iconify-json/{p.name}@{p.version}" for p in packages)
    return f"npm install --ignore-scripts --prefix {folder} {names}"


def check_installed(folder: Path, packages: Sequence[Package], data: str) -> None:
    """Checks that a folder has all packages, in their pinned versions.

    Args:
        folder: Path. The folder in which npm was run.
        packages: sequence of Package. The sets that are needed.
        data: str. Name of the data set that needs them.

    Raises:
        ValueError: If a package is missing or has another version.
    """
    wrong = []
    for package in packages:
        manifest = folder / SCOPE / package.name / "package.json"
        if not manifest.is_file():
            wrong.append(package.name)
            continue
        version = json.loads(manifest.read_text(encoding="utf-8")).get("version")
        if version != package.version:
            wrong.append(f"{package.name} {package.version} (there is {version})")
    if wrong:
        raise ValueError(
            f"The data set {data!r} is drawn from npm packages, which are not all in {folder}: "
            f"{', '.join(wrong[:4])}{' …' if len(wrong) > 4 else ''}. Give manual_dir=, the folder "
            "in which you installed them, or install them (nothing else downloads them) with: "
            f"{npm_command(packages, shlex.quote(str(folder)))}"
        )


class IconSet:
    """The drawings of one package.

    Args:
        folder: Path. The folder in which npm was run.
        name: str. Name of the set.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    def _read(self, file: str) -> Any:
        path = self.folder / SCOPE / self.name / file
        return json.loads(path.read_text(encoding="utf-8"))

    @functools.cached_property
    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = self._read("icons.json")
        return content

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """Names and other names of the drawings: each with the name that `svg` takes.

        Drawings that their authors withdrew, and those that are another one turned or mirrored,
        are left out.
        """
        shown = {n: n for n, icon in self._content["icons"].items() if not icon.get("hidden")}
        names = dict(shown)
        for other, alias in self._content.get("aliases", {}).items():
            if set(alias) <= {"parent", "hidden"} and alias["parent"] in shown:
                names.setdefault(other, alias["parent"])
        return names

    @functools.cached_property
    def codes(self) -> dict[str, str]:
        """Names by Unicode code points, such as "1f415" or "1f468-200d-1f33e"; {} if none."""
        codes: dict[str, str] = self._read("chars.json")
        return codes

    @functools.cached_property
    def groups(self) -> dict[str, str]:
        """The group of each drawing that has one, by name."""
        categories: dict[str, list[str]] = self._read("metadata.json").get("categories", {})
        return {name: group for group, names in categories.items() for name in names}

    @functools.cached_property
    def styles(self) -> set[str]:
        """Endings of names that the set declares as styles, such as "bold" or "24-filled"."""
        return {ending for ending in self._read("metadata.json").get("suffixes", {}) if ending}

    def svg(self, name: str) -> str:
        """Returns a drawing as an SVG document.

        Args:
            name: str. A name among the values of `names`.
        """
        icon = self._content["icons"][name]
        box = [
            icon.get(key, self._content.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        ]
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{" ".join(map(str, box))}" color="#000">{icon["body"]}</svg>'
        )
