"""Pictures are drawn from real inputs, and show something."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfmeta
from tfmeta import plots
from tfmeta.report import Evaluation


class Recorder(tfmeta.MetaLearner):
    """Predicts the mean of its support targets that are no padding."""

    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        if support_mask is not None:
            support_y = support_y * support_mask[:, None]
        return tf.reduce_sum(support_y) / (
            tf.cast(tf.shape(support_y)[0], tf.float32)
            if support_mask is None
            else tf.reduce_sum(support_mask)
        )

    def predict_task(self, state, query_x, query_mask=None, training=False):
        return tf.zeros_like(query_x) + state


def check(path: Path) -> np.ndarray:
    pixels = np.asarray(Image.open(path).convert("L"))
    assert min(pixels.shape) > 50
    assert pixels.min() < pixels.max()
    return pixels


@pytest.fixture(scope="module")
def regressor() -> tfmeta.MAML:
    return tfmeta.MAML(
        tfmeta.backbones.mlp(hidden_units=(4,)), inner_learning_rate=0.01, inner_loss="mse"
    )


def classifier() -> tfmeta.MAML:
    keras.utils.set_random_seed(0)
    return tfmeta.MAML(tfmeta.backbones.linear(2, (8, 8, 1)), inner_learning_rate=0.1)


@pytest.mark.parametrize("metrics", [["loss"], ["loss", "accuracy"]])
def test_a_learning_curve_is_drawn(tmp_path: Path, metrics: list[str]) -> None:
    history: list[dict[str, float]] = [
        {"epoch": e, **{f"{p}{m}": 1 / e for m in metrics for p in ("", "val_")}} for e in (1, 2, 3)
    ]
    plots.learning_curve(history, tmp_path / "curve.png")
    check(tmp_path / "curve.png")


@pytest.mark.parametrize("metric", ["mse", "accuracy"])
def test_an_adaptation_curve_is_drawn(tmp_path: Path, metric: str) -> None:
    values = np.random.default_rng(0).uniform(0.1, 1, size=(3, 10))
    plots.adaptation_curve([Evaluation.of(metric, values[-1], values)], tmp_path / "curve.png")
    check(tmp_path / "curve.png")


def test_an_adaptation_curve_has_a_line_for_each_setting_and_the_learners_own_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(plots, "_write", lambda figure, path: drawn.append(figure))
    values = np.array([[0.1, 0.3], [0.5, 0.7], [np.inf, 0.8]])
    evaluation = dataclasses.replace(
        Evaluation.of("accuracy", np.array([0.8, 0.9]), values),
        episodes={"n_way": 5, "n_shot": 1},
        batch_norm="support",
    )
    other = dataclasses.replace(evaluation, episodes={"n_shot": 5}, batch_norm=None)
    plots.adaptation_curve([evaluation, other], tmp_path / "curve.png", test_inner_steps=50)
    (axis,) = drawn[0].axes
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [
        "5-way 1-shot, support",
        "5-shot",
    ]
    for container in axis.containers:
        x, y = container.lines[0].get_data()
        np.testing.assert_array_equal(x, [0, 1, 50])  # What is not finite is left out.
        np.testing.assert_allclose(y, [80, 40, 15])


def test_an_adaptation_curve_needs_inner_steps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without inner_steps"):
        plots.adaptation_curve([Evaluation.of("mse", np.ones(3))], tmp_path / "curve.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_query", [pytest.param(3, marks=pytest.mark.large), (2, 4), 20])
def test_episodes_are_drawn(tmp_path: Path, n_query: Any) -> None:
    data = tfmeta.data.load("digits")
    episodes = data.episodes(n_way=2, n_shot=2, n_query=n_query, meta_batch_size=2)
    plots.episode_sheet(classifier(), next(iter(episodes)), tmp_path / "sheet.png", n_episodes=3)
    check(tmp_path / "sheet.png")


@pytest.mark.large
def test_right_and_wrong_queries_are_green_and_red(tmp_path: Path) -> None:
    def colours(offset: int) -> tuple[bool, bool]:
        data = tfmeta.data.load("digits").episodes(n_way=2, n_query=3, meta_batch_size=1)
        inputs, _ = next(iter(data))
        learner = classifier()
        predicted = np.asarray(learner(inputs, training=False)).argmax(axis=-1)
        plots.episode_sheet(learner, (inputs, (predicted + offset) % 2), tmp_path / "s.png")
        pixels = np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).reshape(-1, 3)
        return tuple(
            bool((pixels == [int(c[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=1).any())
            for c in (plots.GOOD, plots.BAD)
        )

    assert colours(0) == (True, False)
    assert colours(1) == (False, True)


def test_padding_is_not_drawn_as_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[np.ndarray] = []
    monkeypatch.setattr(plots, "_show", lambda axis, image, colour: shown.append(image))
    episodes = tfmeta.data.load("digits").episodes(
        n_way=2, n_shot=1, n_query=(1, 5), meta_batch_size=2
    )
    batch = next(b for b in episodes if b[2].numpy().sum() < 2 * 2 * 5)
    plots.episode_sheet(classifier(), batch, tmp_path / "sheet.png")
    assert len(shown) == 2 * 2 + batch[2].numpy().sum()
    assert all(image.max() > 0 for image in shown)


@pytest.mark.parametrize("n_tasks", [1, 3])
def test_regression_fits_are_drawn(tmp_path: Path, regressor: tfmeta.MAML, n_tasks: int) -> None:
    tasks = tfmeta.data.load("sinusoid").episodes(n_shot=3, n_query=9, meta_batch_size=2)
    plots.regression_fits({"a": regressor}, next(iter(tasks)), tmp_path / "fits.png", n_tasks)
    check(tmp_path / "fits.png")


def test_fits_to_padded_tasks_ignore_the_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(plots, "_write", lambda figure, path: figures.append(figure))
    episodes = tfmeta.data.load("sinusoid").episodes(
        n_shot=(1, 6), n_query=(1, 6), meta_batch_size=2
    )
    batch = next(
        b
        for b in episodes
        if b[0]["support_mask"].numpy().min() == 0 and b[0]["query_mask"].numpy().min() == 0
    )
    plots.regression_fits({"mean": Recorder()}, batch, tmp_path / "fits.png")
    inputs, _, query_mask = batch
    for t, axis in enumerate(figures[0].axes):
        queries, support, fit = (line.get_xydata() for line in axis.lines)
        n_support = int(inputs["support_mask"][t].numpy().sum())
        n_query = int(query_mask[t].numpy().sum())
        assert (len(support), len(queries)) == (n_support, n_query)
        mean = inputs["support_y"][t, :n_support].numpy().mean()
        np.testing.assert_allclose(fit[:, 1], mean, rtol=1e-4)


@pytest.mark.large
def test_inner_schedules_are_drawn(tmp_path: Path) -> None:
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    options = {"inner_steps": 3, "inner_loss": "mse"}
    learner = tfmeta.MAML(network, inner_rule="schedule", **options)
    plots.inner_schedules({"learned": learner}, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size[0] > 1000
    with pytest.raises(ValueError, match='"schedule" has schedules to draw; plain has SGD'):
        plots.inner_schedules({"plain": tfmeta.MAML(network, **options)}, tmp_path / "plot.png")


def test_regret_curves_have_a_line_and_a_band_per_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    write = plots._write
    monkeypatch.setattr(
        plots, "_write", lambda figure, path: (figures.append(figure), write(figure, path))
    )
    curves = {"random": np.array([[0.4, 0.2, 0.1], [0.2, 0.2, 0.1]]), "fixed": np.full((1, 3), 0.1)}
    plots.regret_curves(curves, tmp_path / "plot.png")
    (axis,) = figures[0].axes
    first, second = axis.lines
    np.testing.assert_allclose(first.get_xydata(), [[1, 0.3], [2, 0.2], [3, 0.1]])
    np.testing.assert_allclose(second.get_ydata(), 0.1)
    # One seed has no interval.
    assert len(axis.collections) == 1
    check(tmp_path / "plot.png")


def test_the_module_does_without_matplotlib_until_it_draws() -> None:
    program = """
import sys
sys.modules["matplotlib"] = None  # Importing it fails. Keras does without it, too.
import tfmeta.plots
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
