"""Tables on a terminal, and tab-separated lines into a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table to stdout.

    Args:
        head: Sequence of str, `[columns]`. The names of the columns.
        rows: Sequence of rows, `[columns]` str each.
    """
    if not sys.stdout.isatty():
        for row in (head, *rows):
            print(*row, sep="\t")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for i, name in enumerate(head):
        # A name is to be copied: it is not wrapped.
        table.add_column(name, no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)
