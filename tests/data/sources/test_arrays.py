"""Arrays in memory."""

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
    with pytest.raises(ValueError, match=r"must be integers; got float64"):
        load(([[0], [1]], [0.0, 1.0]))
