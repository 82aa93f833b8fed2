"""Checks in double and in half precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.testing.case import Case
from tfmeta.testing.comparisons import assert_close
from tfmeta.testing.episodes import N_TASKS, Episodes, make_dataset, make_episodes
from tfmeta.testing.learner_runs import (
    compiled_learner,
    has_custom_training,
    loss_of,
    new_learner,
    state,
    weights,
    weights_after,
)
from tfmeta.testing.steps import compare_eager_with_graph


def check_float64(case: Case) -> None:
    """Under the policy `float64` all is float64, and a step follows the loss's true gradient.

    The gradient is compared with central differences of the compiled loss along a random
    direction, so the network must not start on a kink: one-shot batch statistics before a ReLU
    put it at 0. Learners with custom training and first-order ones have no such gradient: their
    step is computed eagerly and in a graph, and the two are compared.
    """
    with floats("float64", "float64"):
        episodes = make_episodes(case)
        learner = compiled_learner(case, learning_rate=1.0)
        dtype = learner(episodes[0]).dtype
        assert dtype == tf.float64, f"predictions are {dtype.name}"
        for variable in learner.weights:
            is_floating = tf.as_dtype(variable.dtype).is_floating
            assert not is_floating or variable.dtype == "float64", (
                f"{variable.path} is {variable.dtype}"
            )
        if case.exact_gradient and not has_custom_training(case):
            _compare_with_finite_differences(learner, episodes)
        else:
            compare_eager_with_graph(case, [episodes], rtol=1e-9, atol=1e-11)


def _compare_with_finite_differences(learner: MetaLearner, episodes: Episodes) -> None:
    inputs, query_y = episodes
    start, variables = state(learner), learner.trainable_variables
    rng = np.random.default_rng(0)
    before = [v.numpy() for v in variables]
    direction = [rng.normal(size=value.shape) for value in before]

    def restore() -> None:
        for variable, value in start:
            variable.assign(value)

    def loss_at(step: float) -> float:
        for variable, value, d in zip(variables, before, direction, strict=True):
            variable.assign(value + step * d)
        predicted = learner(inputs, training=True)
        loss = learner.compute_loss(
            x=inputs, y=tf.constant(query_y), y_pred=predicted, training=True
        )
        # A call in training also changes moving averages and seeds.
        restore()
        return float(loss)

    epsilon = 1e-6
    expected = (loss_at(epsilon) - loss_at(-epsilon)) / (2 * epsilon)
    weights_after(learner, episodes)
    actual = sum(
        float(np.sum((value - v.numpy()) * d))
        for v, value, d in zip(variables, before, direction, strict=True)
    )
    assert_close(
        actual, expected, "a training step does not follow the gradient of the loss", 1e-5, 1e-8
    )


def check_mixed_bfloat16(case: Case) -> None:
    """Under `mixed_bfloat16`, `fit` gives finite losses and moves weights, all of them float32."""
    with floats("float32", "mixed_bfloat16"):
        learner = new_learner(case)
        learner.compile(keras.optimizers.SGD(0.01), loss_of(case, learner))
        data = make_dataset(case, n_batches=3, n_tasks=N_TASKS)
        inputs = make_episodes(case)[0]
        learner(inputs)
        before = weights(learner)
        losses = learner.fit(data, shuffle=False, verbose=0).history["loss"]
        assert np.isfinite(losses).all(), f"the loss is {losses}"
        moved = zip(before, weights(learner), strict=True)
        assert any(np.any(a != b) for a, b in moved), "training moves no weight"
        predicted = learner(inputs)
        assert predicted.dtype == tf.float32, f"predictions are {predicted.dtype.name}"
        assert np.isfinite(predicted).all(), "predictions are not finite"
        for variable in learner.weights:
            assert variable.dtype != "bfloat16", f"{variable.path} is bfloat16"


@contextlib.contextmanager
def floats(floatx: str, policy: str) -> Iterator[None]:
    """Sets Keras's float type and dtype policy in a block."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
