"""Prints the predictions of `tfmeta predict`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Format = Literal["tsv", "csv", "json"]


def write(
    names: Sequence[str],
    outputs: np.ndarray,
    class_names: Sequence[str] | None,
    output_kind: str,
    form: Format,
    top_k: int,
) -> None:
    """Prints predictions to stdout.

    Args:
        names: Sequence of str, `[N]`. The examples.
        outputs: `[N, n_classes]` probabilities or scores, or `[N, *y]` values.
        class_names: Sequence of str, or None if the outputs are values. The classes.
        output_kind: str. What the model returns, as a task's `output_kind`.
        form: str. `"tsv"`: one line per example, without a header; `"csv"`, with one; `"json"`, a
            list with one object per example.
        top_k: int. How many classes to print per example.
    """
    import numpy as np

    flat = outputs.reshape(len(names), -1)
    if class_names is None:
        columns = (
            ["value"] if flat.shape[1] == 1 else [f"value_{i + 1}" for i in range(flat.shape[1])]
        )
        rows = [[f"{value:.6g}" for value in row] for row in flat]
        records: list[dict[str, Any]] = [{"values": [number(text) for text in row]} for row in rows]
    else:
        measure = "score" if output_kind.endswith("scores") else "probability"
        # Ties go to the first class, as with `argmax`.
        best = np.argsort(-flat, axis=1, kind="stable")[:, :top_k]
        pairs = [
            [(class_names[k], f"{row[k]:.4f}") for k in ks]
            for row, ks in zip(flat, best, strict=True)
        ]
        n_columns = len(pairs[0])
        columns = [
            f"{name}_{i + 1}" if n_columns > 1 else name
            for i in range(n_columns)
            for name in ("class", measure)
        ]
        rows = [[text for pair in row for text in pair] for row in pairs]
        ranked = [[{"class": c, measure: number(p)} for c, p in row] for row in pairs]
        records = [row[0] if top_k == 1 else {"classes": row} for row in ranked]
    _print(names, columns, rows, records, form)


def number(text: str) -> float | None:
    """Returns a printed number as a value for JSON: None if it is not finite.

    Args:
        text: str. The number.
    """
    value = float(text)
    return value if abs(value) < float("inf") else None


def _print(
    names: Sequence[str],
    columns: list[str],
    rows: list[list[str]],
    records: list[dict[str, Any]],
    form: Format,
) -> None:
    if form == "json":
        named = [{"file": name, **record} for name, record in zip(names, records, strict=True)]
        # An encoding that lacks a character would make an escape of it that JSON does not know.
        is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        print(json.dumps(named, indent=2, ensure_ascii=not is_unicode))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["file", *columns])
        writer.writerows([name, *row] for name, row in zip(names, rows, strict=True))
    else:
        for name, row in zip(names, rows, strict=True):
            print(name, *row, sep="\t")
