"""Prints the predictions of `tfmeta predict`."""

from __future__ import annotations

import csv
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tfmeta.data.decoding import printable

if TYPE_CHECKING:
    import numpy as np

Format = Literal["tsv", "csv", "json"]


def write(
    parts: Iterable[tuple[Sequence[str], np.ndarray]],
    class_names: Sequence[str] | None,
    output_kind: str,
    form: Format,
    top_k: int,
) -> None:
    """Prints predictions to stdout, part by part.

    Args:
        parts: Iterable of names, `[N]`, and outputs, `[N, n_classes]` probabilities or scores, or
            `[N, *y]` values. The examples.
        class_names: Sequence of str, or None if the outputs are values. The classes.
        output_kind: str. What the model returns, as a task's `output_kind`.
        form: str. `"tsv"`: one line per example, without a header; `"csv"`, with one; `"json"`, a
            list with one object per example.
        top_k: int. How many classes to print per example.
    """
    # An encoding that lacks a character would make an escape of it that JSON does not know.
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    is_first = True
    for names, outputs in parts:
        names = [printable(name) for name in names]
        columns, rows, records = _table(outputs, class_names, output_kind, top_k)
        if form == "json":
            for name, record in zip(names, records, strict=True):
                content = {"file": name, **record}
                text = json.dumps(content, indent=2, ensure_ascii=not is_unicode)
                print("[" if is_first else ",", textwrap.indent(text, "  "), sep="\n", end="")
                is_first = False
        elif form == "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            if is_first:
                writer.writerow(["file", *columns])
            writer.writerows([name, *row] for name, row in zip(names, rows, strict=True))
        else:
            for name, row in zip(names, rows, strict=True):
                print(*(in_one_cell(text) for text in (name, *row)), sep="\t")
        is_first = False
    if form == "json":
        print("\n]")


def in_one_cell(text: str) -> str:
    r"""Writes line breaks, tabs and other control characters as escapes.

    Args:
        text: str. Any text.

    Example:

    >>> print(in_one_cell("cat\n1.png"))
    cat\n1.png
    """
    return re.sub(r"[\x00-\x1f\x7f]", lambda match: repr(match[0])[1:-1], text)


def _table(
    outputs: np.ndarray, class_names: Sequence[str] | None, output_kind: str, top_k: int
) -> tuple[list[str], list[list[str]], list[dict[str, Any]]]:
    """Returns the titles of columns, the cells of rows, and the same as values for JSON."""
    import numpy as np

    flat = outputs.reshape(len(outputs), -1)
    if class_names is None:
        columns = (
            ["value"] if flat.shape[1] == 1 else [f"value_{i + 1}" for i in range(flat.shape[1])]
        )
        rows = [[f"{value:.6g}" for value in row] for row in flat]
        return columns, rows, [{"values": [number(text) for text in row]} for row in rows]
    measure = "score" if output_kind.endswith("scores") else "probability"
    # Ties go to the first class, as with `argmax`.
    best = np.argsort(-flat, axis=1, kind="stable")[:, :top_k]
    pairs = [
        [(class_names[k], f"{row[k]:.4f}") for k in ks] for row, ks in zip(flat, best, strict=True)
    ]
    n_columns = best.shape[1]
    columns = [
        f"{name}_{i + 1}" if n_columns > 1 else name
        for i in range(n_columns)
        for name in ("class", measure)
    ]
    ranked = [[{"class": c, measure: number(p)} for c, p in row] for row in pairs]
    records = [row[0] if top_k == 1 else {"classes": row} for row in ranked]
    return columns, [[text for pair in row for text in pair] for row in pairs], records


def number(text: str) -> float | None:
    """Returns a printed number as a value for JSON: None if it is not finite.

    Args:
        text: str. The number.
    """
    value = float(text)
    return value if abs(value) < float("inf") else None
