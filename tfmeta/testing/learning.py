"""The check that meta-training teaches a learner to learn."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tfmeta.testing.case import Case
from tfmeta.testing.episodes import make_dataset, make_episodes
from tfmeta.testing.learner_runs import loss_of, new_learner

TRAINING_TASKS, TEST_TASKS = 8, 200
ERROR_PROBABILITY = 1e-6


def check_learning(case: Case) -> None:
    """Meta-training on tasks that only their support sets tell apart beats chance by far.

    A learner that ignores the support set has an expected accuracy of exactly the chance c in each
    task: 1/n_way, because the classes are exchangeable, or 1/2 for the sign of a regression. The
    accuracies a_e of E test tasks are independent and in [0, 1], so by Hoeffding's inequality

        P(mean(a_e) ≥ c + t) ≤ exp(-2 E t²),

    which is p = 1e-6 at t = √(ln(1/p) / (2 E)). The accuracy must reach the bar c + t. To show
    that the tasks leak nothing, it must stay below the bar if each task gets support labels of an
    independently drawn task (relabelled at random, or with a random sign), because the expected
    accuracy is then c again. Finally, meta-training must lower the loss on the test tasks.
    """
    learner = new_learner(case)
    learner.compile(case.optimizer(), loss_of(case, learner))
    inputs, query_y = make_episodes(case, TEST_TASKS, seed=0, noise=0.1)
    rng = np.random.default_rng(0)
    if case.n_way:
        names = rng.permuted(np.tile(np.arange(case.n_way), (TEST_TASKS, 1)), axis=1)
        unrelated = np.take_along_axis(names, inputs["support_y"], axis=1)
    else:
        unrelated = inputs["support_y"] * rng.choice([-1, 1], size=(TEST_TASKS, 1, 1))
        unrelated = unrelated.astype(inputs["support_y"].dtype)

    def predict(support_y: np.ndarray) -> np.ndarray:
        tasks = {**inputs, "support_y": support_y}
        predicted = learner.predict(tasks, batch_size=TEST_TASKS, verbose=0)
        assert np.isfinite(predicted).all(), "predictions are not finite"
        return predicted

    def loss(predicted: np.ndarray) -> float:
        y, y_pred = tf.constant(query_y), tf.constant(predicted)
        return float(learner.compute_loss(x=inputs, y=y, y_pred=y_pred, training=False))

    def accuracy(predicted: np.ndarray) -> float:
        if case.n_way:
            return float(np.mean(predicted.argmax(axis=-1) == query_y))
        return float(np.mean(np.sign(predicted) == np.sign(query_y)))

    before = loss(predict(inputs["support_y"]))
    data = make_dataset(case, case.training_steps, TRAINING_TASKS, noise=0.1)
    learner.fit(data, shuffle=False, verbose=0)
    predicted = predict(inputs["support_y"])
    chance = 1 / (case.n_way or 2)
    bar = chance + math.sqrt(math.log(1 / ERROR_PROBABILITY) / (2 * TEST_TASKS))
    reached = accuracy(predicted)
    assert reached >= bar, (
        f"accuracy {reached:.3f} after {case.training_steps} steps does not tell the learner from "
        f"one that ignores the support set (chance {chance:.3f}, bar {bar:.3f}). If it needs more "
        "steps, or another optimizer, set training_steps or optimizer in its Case"
    )
    after = loss(predicted)
    assert after < before, f"training does not lower the loss: {before:.4f}, then {after:.4f}"
    control = accuracy(predict(unrelated))
    assert control < bar, f"accuracy {control:.3f} with unrelated support labels, bar {bar:.3f}"
