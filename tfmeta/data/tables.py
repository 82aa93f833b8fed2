"""Reads CSV files of numbers, with labels in the last column, a part at a time."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfmeta.data.decoding import printable

# Cells that are read at once. As Python's text, each takes some 60 bytes.
CELLS = 2**17

# A comment: from the start of a line, or from a space.
_COMMENT = re.compile(r"(^|\s)#.*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_CODE = re.compile(r"[+-]?0\d+")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
# What a column of labels is usually called.
_TITLES = {"label", "labels", "class", "classes", "target", "targets", "category", "y"}


class Labelled(NamedTuple):
    """Examples and their classes.

    Attributes:
        x: float32 `[N, columns - 1]`. The examples.
        y: int64 `[N]`. Their labels, from 0.
        class_names: list of str. The name of each label.
    """

    x: np.ndarray
    y: np.ndarray
    class_names: list[str]


def read_numbers(path: Path) -> Iterator[tuple[list[int], np.ndarray]]:
    """Reads a CSV file of numbers without a header, a part at a time.

    Blank lines and comments (from `#`) are left out. The file may begin with a byte order mark.

    Args:
        path: Path. The file, in UTF-8.

    Yields:
        The numbers of the lines, from 1; and the numbers in them, float32 `[rows, columns]`. At
        least one row in all.

    Raises:
        ValueError: If there is no such file, or it is empty or contains anything but finite
            numbers in rows of equal length.
    """
    for lines, rows in _read(path):
        yield lines, _numbers(path, lines, rows)


def read_table(path: Path) -> np.ndarray:
    """Reads a CSV file as `read_numbers` does, as a whole.

    Args:
        path: Path. The file.

    Returns:
        float32 `[rows, columns]`, at least one row.
    """
    return np.concatenate([numbers for _, numbers in read_numbers(path)])


def read_labelled(path: Path) -> Labelled:
    """Reads a CSV file of numbers without a header, whose last column is the class.

    A label is text, and it is the name of the class. Numbers are the exception: however they are
    written (`7`, `7.0`, `7e0`), equal numbers are one class, with the exact number as its name.
    A code with leading zeros (`007`) stays text. Classes are in the order of their numbers if all
    are numbers, else in alphabetical order.

    Args:
        path: Path. The file, as in `read_numbers`.

    Raises:
        ValueError: As for `read_numbers`, or if there is only one column, a label is missing or no
            finite number, or the first line is a header.
    """
    parts, codes = [], []
    code_of: dict[str, int] = {}
    first_label = None
    for lines, rows in _read(path):
        if len(rows[0]) < 2:
            raise ValueError(
                f"{_name(path)} has only one column: expected numbers and then the label, "
                "separated by commas."
            )
        labels = [row[-1].strip() for row in rows]
        for line, label in zip(lines, labels, strict=True):
            if not label:
                raise ValueError(f"{_name(path)}, line {line} has no label in its last column.")
            if _NOT_FINITE.fullmatch(label):
                raise ValueError(f"The labels in {_name(path)} must be finite; got {label!r}.")
        first_label = labels[0] if first_label is None else first_label
        parts.append(_numbers(path, lines, [row[:-1] for row in rows]))
        codes.append(np.array([code_of.setdefault(label, len(code_of)) for label in labels]))
    assert first_label is not None
    all_codes = np.concatenate(codes)
    _check_no_header(path, first_label, code_of, int((all_codes == code_of[first_label]).sum()))
    named = [_class_name(label) for label in code_of]
    numbers = dict(named)
    are_numbers = all(number is not None for number in numbers.values())
    class_names = sorted(numbers)
    if are_numbers:
        class_names.sort(key=lambda name: numbers[name] or Decimal(0))
    position = {name: i for i, name in enumerate(class_names)}
    label_of_code = np.array([position[name] for name, _ in named])
    return Labelled(np.concatenate(parts), label_of_code[all_codes], class_names)


def _class_name(label: str) -> tuple[str, Decimal | None]:
    """Returns the name of the class of a label, and its number if it is one."""
    if not _NUMBER.fullmatch(label) or _CODE.fullmatch(label):
        return label, None
    number = Decimal(label)
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return ("0" if number == 0 else text.removeprefix("+")), number


def _check_no_header(path: Path, first: str, labels: dict[str, int], n_first: int) -> None:
    """Raises a ValueError if the label of the first line is the title of a column.

    The other columns of a header may be numbers, as pandas writes them.
    """
    others = [label for label in labels if label != first]
    is_only_text = not _NUMBER.fullmatch(first) and all(_NUMBER.fullmatch(o) for o in others)
    if n_first == 1 and others and (is_only_text or first.lower() in _TITLES):
        raise ValueError(
            f"{_name(path)} must be a CSV file of numbers without a header, but the label of its "
            f"first line is {first!r}, which no other line has: delete the header."
        )


def _read(path: Path) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yields the numbers of lines and their cells, all rows of equal length."""
    if not path.is_file():
        raise ValueError(f"No such file or folder: {_name(path)}.")
    n_columns = None
    lines: list[int] = []
    rows: list[list[str]] = []
    # Excel writes a byte order mark at the start.
    with path.open(encoding="utf-8-sig", newline="") as file, _as_value_errors(path):
        reader = csv.reader(line if '"' in line else _COMMENT.sub("", line) for line in file)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            n_columns = n_columns or len(row)
            if len(row) != n_columns:
                raise ValueError(
                    f"{_name(path)} must be a CSV file of numbers without a header: line "
                    f"{reader.line_num} has {len(row)} columns, the first one {n_columns}."
                )
            lines.append(reader.line_num)
            rows.append(row)
            if len(rows) * n_columns >= CELLS:
                yield lines, rows
                lines, rows = [], []
    if n_columns is None:
        raise ValueError(f"{_name(path)} has no examples.")
    if rows:
        yield lines, rows


@contextlib.contextmanager
def _as_value_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{_name(path)} must be text in UTF-8: {error}.") from error
    except csv.Error as error:
        raise ValueError(
            f"{_name(path)} must be a CSV file of numbers without a header: {error}."
        ) from error


def _numbers(path: Path, lines: list[int], rows: list[list[str]]) -> np.ndarray:
    try:
        numbers = np.array(rows, np.float64)
    except ValueError as error:
        line, cell = next(
            (line, cell)
            for line, row in zip(lines, rows, strict=True)
            for cell in row
            if not _is_number(cell)
        )
        raise ValueError(
            f"{_name(path)} must be a CSV file of numbers without a header: line {line} has "
            f"{cell!r}."
        ) from error
    with np.errstate(over="ignore"):  # Infinities are refused below.
        numbers = numbers.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"The numbers in {_name(path)} must be finite.")
    return numbers


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _name(path: Path) -> str:
    return printable(str(path))
