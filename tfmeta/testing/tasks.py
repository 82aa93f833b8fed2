"""Checks that the tasks of a meta-batch are independent of each other."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfmeta.task_mapping import TaskMapping
from tfmeta.testing.case import Case
from tfmeta.testing.comparisons import assert_close, assert_weights_close
from tfmeta.testing.episodes import N_TASKS, make_episodes, take_tasks
from tfmeta.testing.learner_runs import (
    compiled_learner,
    first_predictions,
    first_trained_weights,
    is_sum,
    predictions,
    state,
    weights_after,
)
from tfmeta.testing.precision import floats

LOOP: TaskMapping = "loop"
AT_ONCE: TaskMapping = "vectorized"


def check_task_order(case: Case) -> None:
    """Permuted tasks permute the predictions and leave a training step unchanged."""
    order = np.roll(np.arange(N_TASKS), 1)
    permuted = take_tasks(make_episodes(case), order)
    learner = compiled_learner(case)
    assert_close(
        predictions(learner, permuted[0]),
        first_predictions(case)[order],
        "predictions depend on the order of the tasks",
    )
    if case.random_training:
        return
    assert_weights_close(
        learner,
        weights_after(learner, permuted),
        first_trained_weights(case),
        "training depends on the order of the tasks",
    )


def check_vectorized_equals_loop(case: Case) -> None:
    """All tasks at once are predicted, and train, as one after another: to rounding, in float64.

    After each inner step, too.
    """
    results = []
    with floats("float64", "float64"):
        inputs, query_y = make_episodes(case)
        for mapping in LOOP, AT_ONCE:
            learner = compiled_learner(case, run_eagerly=False, task_mapping=mapping)
            predicted = [learner.predict_on_batch(inputs)]
            if learner.has_inner_steps:
                by_step = tf.function(learner.predict_by_step, autograph=False)
                predicted.append(by_step(keras.tree.map_structure(tf.constant, inputs), 1))
            trained = weights_after(learner, (inputs, query_y))
            results.append((predicted, trained, learner.evaluate(inputs, query_y, verbose=0)))
    (predicted, trained, logs), (predicted_at_once, trained_at_once, logs_at_once) = results
    for one, another in zip(predicted_at_once, predicted, strict=True):
        assert_close(one, another, "predictions differ if tasks are vectorised", 1e-9, 1e-9)
    assert_close(logs_at_once, logs, "the loss or a metric differs if tasks are vectorised", 1e-9)
    message = "weights differ after training on vectorised tasks"
    assert_weights_close(learner, trained_at_once, trained, message, 1e-9, 1e-9)


def check_meta_batch_size(case: Case) -> None:
    """Tasks do not affect each other; a step on many is the mean of the steps on each alone.

    The step is not compared if the loss is a sum, because a sum counts regularisers only once.
    """
    episodes, learner = make_episodes(case), compiled_learner(case)
    together = first_predictions(case)
    start, iterations = state(learner), learner.optimizer.iterations
    alone = []

    def restore() -> None:
        for variable, value in [*start, (iterations, 0)]:
            variable.assign(value)

    for t in range(N_TASKS):
        task = take_tasks(episodes, [t])
        assert_close(
            predictions(learner, task[0])[0],
            together[t],
            f"task {t} is predicted differently beside other tasks",
        )
        alone.append(weights_after(learner, task))
        restore()
    if is_sum(learner.loss) or case.random_training:
        return
    for variable, trained, *single in zip(
        learner.weights, first_trained_weights(case), *alone, strict=True
    ):
        if np.issubdtype(trained.dtype, np.floating):
            assert_close(
                trained,
                np.mean(single, axis=0),
                f"a step on all tasks is not the mean of single ones: {variable.path}",
            )
