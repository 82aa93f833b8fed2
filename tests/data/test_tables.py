"""CSV files: numbers, labels, and what is told about files that are no such tables."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tfmeta.data import tables
from tfmeta.data.tables import read_labelled, read_numbers, read_table


@pytest.fixture
def written(tmp_path: Path):
    """A function: writes a CSV file of this text, or of these bytes."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_table_is_read_as_float32(written) -> None:
    table = read_table(written("1,2.5\n-3e2,4\n"))
    assert table.dtype == np.float32
    assert table.tolist() == [[1, 2.5], [-300, 4]]
    assert read_table(written("7\n")).tolist() == [[7]]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf1,2\n3,4\n",  # the byte order mark of Excel
        "1,2\r\n3,4\r\n",
        "\n1,2\n\n  \n3,4",
        "# a comment\n1,2 # another\n\t# a third, with 5,6\n3,4\n",
        '"1","2"\n"3","4"\n',
        " 1 , 2\n3,4 \n",
    ],
)
def test_what_programs_and_people_add_does_not_count(written, content: str | bytes) -> None:
    assert read_table(written(content)).tolist() == [[1, 2], [3, 4]]


def test_lines_are_counted_as_in_an_editor(written) -> None:
    ((lines, _),) = read_numbers(written("# one\n1\n\n2\n"))
    assert lines == [2, 4]


@pytest.mark.parametrize("read", [read_table, read_labelled])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no examples"),
        ("# nothing\n\n", "has no examples"),
        ("a,b\n1,2\n", "must be a CSV file of numbers without a header: line 1 has 'a'"),
        ("1,2\n3\n", "without a header: line 2 has 1 columns, the first one 2"),
        ("1,2\n,3\n", "without a header: line 2 has ''"),
        ("1;2,3\n", "without a header: line 1 has '1;2'"),
        ("nan,1\n", "must be finite"),
        ("1e60,1\n", "must be finite"),
        ("1,2\n3,inf\n", "must be finite"),
        (b"\xff\xfe1\x00,\x002\x00", "must be text in UTF-8"),
        (b"1,caf\xe9\n", "must be text in UTF-8"),
        (b"1" + b"1" * 200_000 + b",2\n", "must be a CSV file of numbers"),
    ],
)
def test_a_bad_table_is_told(written, read, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"table\.csv.* {message}") as error:
        read(written(content))
    assert "\n" not in str(error.value)


# === Labels ===


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["20240107", "20240100", "20240101"], ["20240100", "20240101", "20240107"]),
        (["4915112345678", "4915112345679"], ["4915112345678", "4915112345679"]),
        (["9007199254740993", "9007199254740992"], ["9007199254740992", "9007199254740993"]),
        (["1" * 40 + "1", "1" * 40 + "2"], ["1" * 40 + "1", "1" * 40 + "2"]),
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["0.5", "-0.25", "1e-3"], ["-0.25", "0.001", "0.5"]),
        (["7.000000000000000000e+00", "7", "4.0", "+4"], ["4", "7"]),
        (["0", "-0", "0.0"], ["0"]),
        (["007", "7"], ["007", "7"]),
        (["dog", "cat", "Österreich"], ["cat", "dog", "Österreich"]),
        (["C#", "C", "C++"], ["C", "C#", "C++"]),
        (['"cat, small"', '"cat, big"'], ["cat, big", "cat, small"]),
        (["1e999999", "2"], ["1e999999", "2"]),
    ],
)
def test_labels_keep_their_values_and_names(written, labels: list[str], names: list[str]) -> None:
    content = "".join(f"{i},0.5,{label}\n" for i, label in enumerate(labels * 2))
    labelled = read_labelled(written(content))
    assert labelled.class_names == names
    assert labelled.x.tolist() == [[i, 0.5] for i in range(2 * len(labels))]
    half = len(labels)
    assert labelled.y[:half].tolist() == labelled.y[half:].tolist()
    assert sorted(set(labelled.y.tolist())) == list(range(len(names)))
    if len(names) == len(labels):
        written_names = [labelled.class_names[k] for k in labelled.y[:half]]
        plain = [label.strip('"').removeprefix("+") for label in labels]
        assert [float(n) if n[-1:].isdigit() else n for n in written_names] == [
            float(n) if n[-1:].isdigit() else n for n in plain
        ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,\n2,a\n", r"line 1 has no label"),
        ("1,a\n2,nan\n", r"labels in .* must be finite; got 'nan'"),
        ("1\n2\n", "only one column"),
        ("0,1,label\n1,2,3\n2,3,4\n", "without a header, .* 'label'"),
        ("0,1,kind\n1,2,3\n2,3,4\n", "without a header, .* 'kind'"),
        ("0,1,Class\n1,2,cat\n2,3,dog\n", "without a header, .* 'Class'"),
    ],
)
def test_labels_that_are_none_are_told(written, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labelled(written(content))


def test_classes_may_be_called_as_columns_are(written) -> None:
    assert read_labelled(written("1,y\n2,n\n3,y\n4,n\n")).class_names == ["n", "y"]


# === Memory ===


def test_a_table_is_read_in_parts(written, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written("".join(f"{i},{i}.5,{i % 3}\n" for i in range(100)))
    whole = read_labelled(path)
    monkeypatch.setattr(tables, "CELLS", 21)
    assert [len(lines) for lines, _ in read_numbers(path)] == [7] * 14 + [2]
    assert [line for lines, _ in read_numbers(path) for line in lines] == list(range(1, 101))
    in_parts = read_labelled(path)
    np.testing.assert_array_equal(in_parts.x, whole.x)
    np.testing.assert_array_equal(in_parts.y, whole.y)
    assert in_parts.class_names == whole.class_names == ["0", "1", "2"]


@pytest.mark.large
def test_memory_does_not_grow_with_the_lines(written) -> None:
    def peak(n_lines: int) -> int:
        path = written("1.25,2.5,3,4\n" * n_lines)
        tracemalloc.start()
        for _ in read_numbers(path):
            pass
        _, largest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return largest

    # Two parts may be in memory at once: the one before is freed when the next is there.
    one_part = tables.CELLS // 4
    assert peak(6 * one_part) < 1.2 * peak(3 * one_part)
