"""Checks of single training steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.testing.case import Case
from tfmeta.testing.comparisons import ATOL, RTOL, assert_close, assert_weights_close
from tfmeta.testing.episodes import Episodes, make_episodes
from tfmeta.testing.learner_runs import compiled_learner, predictions, weights, weights_after


def check_eager_equals_graph(case: Case) -> None:
    """Predictions and training steps are the same eagerly and in a graph, and weights change."""
    compare_eager_with_graph(case, [make_episodes(case, seed=s) for s in (1, 2)], RTOL, ATOL)


def compare_eager_with_graph(
    case: Case, batches: Sequence[Episodes], rtol: float, atol: float
) -> None:
    """Asserts that predictions and training steps are the same eagerly and in a graph."""
    eager, graph = (compiled_learner(case, run_eagerly=e) for e in (True, False))
    inputs = keras.tree.map_structure(tf.constant, batches[0][0])
    predicted = tf.function(lambda x: graph(x, training=False), autograph=False)(inputs)
    assert_close(predicted, predictions(eager, inputs), "call differs in a graph", rtol, atol)
    start = weights(eager)
    trained = weights_after(eager, *batches)
    assert_weights_close(
        eager,
        weights_after(graph, *batches),
        trained,
        "weights differ after training in a graph",
        rtol,
        atol,
    )
    assert not eager.trainable_variables or any(
        np.any(a != b) for a, b in zip(start, trained, strict=True)
    ), "training steps change no weight"


def check_train_step_equals_default(case: Case) -> None:
    """`train_step` changes weights and logs as Keras's default does, with and without weights."""
    for weighted in (False, True):
        results: list[tuple[list[np.ndarray], dict[str, float]]] = []
        for default in (False, True):
            learner = compiled_learner(case)
            logs: dict[str, Any] = {}
            for seed in (1, 2):
                inputs, query_y = make_episodes(case, seed=seed)
                data: Any = (inputs, query_y)
                if weighted:
                    rng = np.random.default_rng(seed)
                    data += (rng.uniform(size=query_y.shape[:2]).astype(keras.config.floatx()),)
                data = keras.tree.map_structure(tf.constant, data)
                step = keras.Model.train_step if default else type(learner).train_step
                logs = step(learner, data)
            results.append((weights(learner), {k: float(v) for k, v in logs.items()}))
        (actual, actual_logs), (expected, expected_logs) = results
        condition = f"{'with' if weighted else 'without'} sample weights"
        assert_weights_close(learner, actual, expected, condition)
        assert set(actual_logs) == set(expected_logs), (
            f"logs {condition} are {sorted(actual_logs)}, not {sorted(expected_logs)}"
        )
        for name, value in expected_logs.items():
            assert_close(actual_logs[name], value, f"log {name!r} {condition}")
