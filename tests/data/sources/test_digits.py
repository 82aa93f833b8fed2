"""The handwritten digits of scikit-learn."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from tfmeta.data import ClassDataset, load


def examples(data: ClassDataset, name: str) -> np.ndarray:
    return data.fetch(tf.constant(data.rows[data.class_names.index(name)])).numpy()


def test_digits_say_how_to_get_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "tfmeta\[digits\]"'):
        load("digits")


def test_digits_have_ink_one() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    x = examples(load("digits", split="all"), "0")
    assert x.shape[1:] == (8, 8, 1)
    assert (x.min(), x.max()) == (0, 1)
    corner, stroke = x[:, 0, 0].mean(), x[:, 3, 2].mean()
    assert corner < 0.01 < 0.5 < stroke, "a nought is paper in the corner and ink on the left"
