"""Files that released versions wrote load, and compute the same numbers.

The files are made by `tests/fixtures/make.py`. They are loaded with nothing but `import tfmeta`
before, as a user would.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import HEADS, LATER  # Version 0.1.0 had none of them.

import tfmeta

RELEASE = Path(__file__).parent / "fixtures" / "0.1.0"
EPISODE = ("support_x", "support_y", "query_x")


def names(folder: str) -> list[str]:
    return sorted(path.stem for path in (RELEASE / folder).iterdir())


@cache
def expected() -> dict[str, np.ndarray]:
    with np.load(RELEASE / "expected.npz") as file:
        return {name: file[name] for name in file.files}


def arrays(name: str, keys: Any = EPISODE) -> dict[str, np.ndarray]:
    return {key: expected()[f"{name}/{key}"] for key in keys}


def assert_same(actual: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def assert_predicts_as_before(learner: tfmeta.MetaLearner, name: str) -> None:
    assert_same(learner(arrays(name)), expected()[f"{name}/prediction"])


def test_there_is_a_file_of_every_class() -> None:
    assert set(tfmeta.learners.BY_NAME) - {*HEADS, *LATER} <= set(names("learners"))


@pytest.mark.parametrize("name", names("learners"))
def test_a_learner_predicts_and_trains_on_as_before(name: str) -> None:
    learner = keras.models.load_model(RELEASE / "learners" / f"{name}.keras")
    assert_predicts_as_before(learner, name)
    assert learner.optimizer.iterations == 3
    learner.run_eagerly = True  # Faster, once.
    loss = learner.train_on_batch(arrays(name), expected()[f"{name}/query_y"])
    np.testing.assert_allclose(loss, expected()[f"{name}/next_loss"], rtol=1e-5)
    assert learner.optimizer.iterations == 4


@pytest.mark.parametrize("name", names("adapted"))
def test_an_adapted_model_predicts_as_before(name: str) -> None:
    model = keras.models.load_model(RELEASE / "adapted" / f"{name}.keras")
    x, prediction = arrays(f"adapted/{name}", ("x", "prediction")).values()
    assert_same(model(x), prediction)


@pytest.mark.parametrize("name", names("presets"))
def test_a_preset_predicts_as_before(name: str) -> None:
    assert_predicts_as_before(tfmeta.from_preset(RELEASE / "presets" / name), name)


@pytest.mark.parametrize("name", names("servables"))
def test_a_servable_answers_as_before(name: str) -> None:
    prefixes = {key.rpartition("/")[0] for key in expected()}
    assert f"servable/{name}" in prefixes
    signatures = tf.saved_model.load(str(RELEASE / "servables" / name / "1")).signatures
    request = inside(f"servable/{name}")
    signature = signatures["adapt_and_predict" if "support_x" in request else "serving_default"]
    answer = signature(**{key: tf.constant(value) for key, value in request.items()})
    before = inside(f"servable/{name}/answer")
    assert answer.keys() == before.keys()
    for key, value in before.items():
        assert_same(answer[key], value)


def inside(prefix: str) -> dict[str, np.ndarray]:
    """The arrays directly under a prefix."""
    found = {key.rpartition("/"): value for key, value in expected().items()}
    return {key: value for (folder, _, key), value in found.items() if folder == prefix}


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """A function: what a command prints."""
    from tfmeta.cli import main

    # TensorFlow has long started here.
    monkeypatch.setattr("tfmeta.threads.configure_threads", lambda: None)

    def run(*arguments: object) -> str:
        assert main([*map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


def test_a_run_is_evaluated_as_before(command: Callable[..., str], tmp_path: Path) -> None:
    output = tmp_path / "evaluation.json"
    command("evaluate", RELEASE / "run", "--output", output)
    before, after = (
        json.loads(path.read_text(encoding="utf-8"))
        for path in (RELEASE / "run" / "evaluation.json", output)
    )
    assert before["mean"] > 0
    assert_same(after["mean"], before["mean"])
    means = [[step["mean"] for step in result["by_inner_step"]] for result in (before, after)]
    assert_same(means[1], np.array(means[0]))
    assert after["weights_sha256"] == before["weights_sha256"]


def test_a_task_folder_predicts_as_before(command: Callable[..., str], tmp_path: Path) -> None:
    x, prediction = arrays("task", ("x", "prediction")).values()
    np.savetxt(tmp_path / "queries.csv", x, delimiter=",")
    printed = command("predict", RELEASE / "task", tmp_path / "queries.csv")
    printed = [line.split("\t")[1] for line in printed.splitlines()]
    assert_same([float(value) for value in printed], prediction)


@pytest.mark.parametrize("name", tfmeta.list_presets())
def test_each_shipped_preset_loads(name: str) -> None:
    assert tfmeta.from_preset(name).built
