"""Arrays in memory."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfmeta.data import ClassDataset, load


def examples(data: ClassDataset, name: str) -> np.ndarray:
    return data.fetch(tf.constant(data.rows[data.class_names.index(name)])).numpy()


def test_arrays_are_grouped_by_label() -> None:
    data = load((np.array([[0], [51], [255]], np.uint8), [1, 0, 1]), class_names=["a", "b"])
    assert data.class_names == ["a", "b"]
    assert examples(data, "a").tolist() == [[np.float32(0.2)]]
    assert examples(data, "b").tolist() == [[0], [1]]
    assert data.source == {"name": "arrays", "split": "all"}


def test_bad_arrays_are_told_through_load() -> None:
    with pytest.raises(ValueError, match=r"must be finite"):
        load(([[np.nan], [1]], [0, 1]))
    with pytest.raises(ValueError, match=r"shapes \(2, 1\) and \(3,\)"):
        load(([[0], [1]], [0, 1, 1]))
    with pytest.raises(ValueError, match=r"must be integers, or text; got float64"):
        load(([[0], [1]], [0.0, 1.0]))


def test_a_mapping_holds_the_examples_of_each_class() -> None:
    data = load({"dog": np.ones((3, 2)), "cat": np.zeros((2, 2))})
    assert (data.class_names, [len(r) for r in data.rows]) == (["cat", "dog"], [2, 3])
    for name, value in (("dog", 1), ("cat", 0)):
        rows = data.rows[data.class_names.index(name)]
        assert (data.fetch(rows).numpy() == value).all()


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "examples .* of each class"),
        ({"x": np.ones((3, 2)), "y": np.zeros(3)}, r"pass arrays \(x, y\)"),
        ({"a": np.ones((3, 2)), "b": np.ones((3, 4))}, r"one shape .*'b': \(3, 4\)"),
        ({"a": np.ones((3, 2)), "b": np.ones((3, 2), "uint8")}, r"one type; got .*'uint8'"),
    ],
)
def test_a_mapping_of_something_else_is_told(mapping: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(mapping)
