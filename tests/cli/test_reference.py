"""The page docs/cli.md says of every command what its help says.

`python tests/cli/test_reference.py` writes the page anew.
"""

import re
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from tfmeta.cli import app
from tfmeta.files import write_text

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BEGIN, END = "<!-- commands: written by tests/cli/test_reference.py -->", "<!-- end of commands -->"


def commands(command: Any, name: str) -> dict[str, Any]:
    """A command and those below it, by name."""
    found = {name: command}
    for sub_name, sub in getattr(command, "commands", {}).items():
        found |= commands(sub, f"{name} {sub_name}")
    return found


def plain(text: str) -> str:
    return " ".join(text.split())


def test_the_reference_has_every_command_and_option():
    text = plain(PAGE.read_text(encoding="utf-8"))
    missing = []
    for name, command in commands(get_command(app), "tfmeta").items():
        section = text.partition(f"# `{name}` ")[2].partition("# `")[0]
        said = [command.help, *(parameter.help for parameter in command.params)]
        said += [option for parameter in command.params for option in parameter.opts]
        missing += [f"{name}: {each}" for each in said if plain(each) not in section]
    assert missing == [], "write it anew: python tests/cli/test_reference.py"


def test_the_reference_has_no_other_command():
    named = re.findall(r"^#+ `(tfmeta.*)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) == set(commands(get_command(app), "tfmeta"))


def write_page() -> None:
    """Writes the part of the page between the marks."""
    command = get_command(app)
    docs = get_docs_for_click(obj=command, ctx=typer.Context(command), name="tfmeta", indent=1)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(PAGE, f"{before}{BEGIN}\n\n{docs.strip()}\n\n{END}{after}")


if __name__ == "__main__":
    write_page()
