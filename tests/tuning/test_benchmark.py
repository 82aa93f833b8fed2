"""The benchmark of tuning: how it reads its table, and what the page says of its results."""

import importlib.util
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("run", ROOT / "benchmarks" / "tuning" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_regrets_by_hand(benchmark):
    scores = np.array([0.5, 0.9, 0.7, 0.8])
    curve = benchmark.regrets(scores, [0, 2, 3, 2])
    np.testing.assert_allclose(curve[:5], [1, 0.5, 0.25, 0.25, 0.25])
    assert len(curve) == 50


def test_a_file_that_could_run_code_is_refused(benchmark):
    harmful = pickle.dumps({"0": np.float64})
    with pytest.raises(ValueError, match="which no plain values do"):
        benchmark._PlainUnpickler(io.BytesIO(harmful)).load()
    plain = {"00": {"val_acc": [0.5, 0.6]}}
    assert benchmark._PlainUnpickler(io.BytesIO(pickle.dumps(plain))).load() == plain


def test_what_serves_the_past_tasks_is_tried_first(benchmark):
    losses = np.array([[0.0, 0.3, 1.0], [0.6, 0.2, 0.0]])
    assert benchmark.transferred(losses, np.array([0.1, 0.3, 0.2]))[:2] == [1, 0]


def test_the_page_has_the_table_of_the_results(benchmark):
    report = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    assert benchmark.markdown(report) in page
