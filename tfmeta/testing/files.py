"""Checks of variables, files and adapted models."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np

from tfmeta.testing.case import Case
from tfmeta.testing.comparisons import assert_close, assert_weights_close
from tfmeta.testing.episodes import make_episodes
from tfmeta.testing.learner_runs import (
    compiled_learner,
    first_predictions,
    is_transductive,
    predictions,
    state,
    weights_after,
)


def check_call_changes_nothing(case: Case) -> None:
    """Outside of training no variable changes: in call, predict, evaluate and adapt."""
    learner = compiled_learner(case)
    inputs, query_y = make_episodes(case)
    support_x, support_y = inputs["support_x"][0], inputs["support_y"][0]
    before = state(learner)
    for name, use in (
        ("call", lambda: learner(inputs, training=False)),
        ("predict", lambda: learner.predict(inputs, verbose=0)),
        ("evaluate", lambda: learner.evaluate(inputs, query_y, verbose=0)),
        ("adapt", lambda: learner.adapt(support_x, support_y)(inputs["query_x"][0])),
    ):
        use()
        for variable, value in before:
            assert np.array_equal(variable.numpy(), value), f"{name} changes {variable.path}"


def check_keras_round_trip(case: Case) -> None:
    """A learner loaded from a `.keras` file predicts and trains on like the saved one."""
    episodes = make_episodes(case)
    learner = compiled_learner(case)
    weights_after(learner, episodes)
    loaded = _reloaded(learner)
    assert type(loaded) is type(learner), f"it was loaded as a {type(loaded).__name__}"
    assert_close(
        predictions(loaded, episodes[0]),
        predictions(learner, episodes[0]),
        "the loaded learner predicts differently",
    )
    if case.random_training:
        return
    # Files do not keep this setting, which must be the same for both learners.
    loaded.run_eagerly = True
    assert_weights_close(
        learner,
        weights_after(loaded, episodes),
        weights_after(learner, episodes),
        "the loaded learner trains on differently",
    )


def check_adapted_model(case: Case) -> None:
    """The model from `adapt` predicts like the learner, also from its file, and never changes."""
    episodes, learner = make_episodes(case), compiled_learner(case)
    expected = first_predictions(case)[0]
    support_x, support_y, query_x = (
        episodes[0][name][0] for name in ("support_x", "support_y", "query_x")
    )
    names = [f"class {c}" for c in range(case.n_way)] if case.n_way else None
    adapted = learner.adapt(support_x, support_y, names)
    assert isinstance(adapted, keras.Model), f"adapt returns a {type(adapted).__name__}"
    assert adapted.class_names == names, f"its class_names are {adapted.class_names}, not {names}"

    def predict(model: keras.Model, x: np.ndarray) -> np.ndarray:
        return model.predict(x, batch_size=len(x), verbose=0)

    assert_close(
        predict(adapted, query_x), expected, "the adapted model predicts differently from call"
    )
    assert_close(
        predict(_reloaded(adapted), query_x), expected, "it predicts differently from its file"
    )
    if not is_transductive(case):
        rng = np.random.default_rng(0)
        others = rng.normal(size=(1000, *case.example_shape)).astype(query_x.dtype)
        among = predict(adapted, np.concatenate([query_x[:1], others]))
        assert_close(among[0], expected[0], "a query among a thousand is predicted differently")
        assert_close(
            predict(adapted, query_x[:1])[0], expected[0], "a single query is predicted differently"
        )
    weights_after(learner, episodes)
    assert_close(
        predict(adapted, query_x), expected, "training the learner on changes the adapted model"
    )


def _reloaded(model: keras.Model) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return keras.models.load_model(path)
