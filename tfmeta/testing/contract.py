"""Checks of what a learner takes and returns."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfmeta.testing.case import Case
from tfmeta.testing.comparisons import assert_close
from tfmeta.testing.episodes import N_TASKS, make_episodes
from tfmeta.testing.learner_runs import new_learner, predictions


def check_contract(case: Case) -> None:
    """Predictions are logits [T, Q, n_way] or values [T, Q, 1], finite, of the learner's dtype.

    `call` predicts what `adapt_task` and `predict_task` predict, and labels that `fit` has turned
    from integers into floats change nothing.
    """
    learner = new_learner(case)
    inputs, query_y = make_episodes(case)
    called = learner(inputs)
    expected = (*query_y.shape[:2], case.n_way or 1)
    assert tuple(called.shape) == expected, (
        f"predictions have the shape {tuple(called.shape)}, not {expected}"
    )
    assert called.dtype == keras.config.floatx(), f"predictions are {called.dtype.name}"
    assert np.isfinite(called).all(), "predictions are not finite"
    for t in range(N_TASKS):
        task = {name: tf.constant(value[t]) for name, value in inputs.items()}
        state = learner.adapt_task(task["support_x"], task["support_y"])
        by_task = learner.predict_task(state, task["query_x"])
        assert_close(
            tf.cast(by_task, called.dtype),
            called[t],
            f"adapt_task and predict_task on task {t} differ from call",
        )
    if case.n_way:
        as_floats = {**inputs, "support_y": inputs["support_y"].astype(keras.config.floatx())}
        assert_close(
            predictions(learner, as_floats), called, "labels given as floats change predictions"
        )


def check_bad_input(case: Case) -> None:
    """Inputs and support sets that cannot be right raise a ValueError."""
    learner, inputs = new_learner(case), make_episodes(case)[0]
    learner(inputs)
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    for name, use in (
        ("inputs without the axis of tasks", lambda: learner({k: v[0] for k, v in inputs.items()})),
        ("inputs without query_x", lambda: learner({"support_x": x[None], "support_y": y[None]})),
        ("a support set with NaN", lambda: learner.adapt(np.full_like(x, np.nan), y)),
        ("an empty support set", lambda: learner.adapt(x[:0], y[:0])),
        ("a support set with fewer labels than examples", lambda: learner.adapt(x, y[:-1])),
    ):
        try:
            use()
        except ValueError:
            continue
        except Exception as error:
            raise AssertionError(
                f"{name}: raises {type(error).__name__}, not ValueError"
            ) from error
        raise AssertionError(f"{name}: no error was raised")
