"""Collecting by steps: the trajectories that a clock, ticking step by step, would keep."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmeta import rl
from tfmeta.rl.by_steps import trajectories_of_steps

HORIZON = 9
N_TASKS, N_PLACES = 3, 4
# Lengths of the trajectories of each round, task and place; the second task's are short.
LENGTHS = np.random.default_rng(0).integers(1, [[[HORIZON + 1], [3], [HORIZON + 1]]], (60, 3, 4))


def rollout(number):
    """Trajectories whose rewards tell their round and place."""
    mask = np.arange(HORIZON) < LENGTHS[number][..., None]
    tags = np.broadcast_to(100 * number + np.arange(N_PLACES)[:, None], mask.shape)
    rewards = tf.constant(tags * mask, tf.float32)
    pair = tf.stack([rewards, rewards], axis=-1)
    return rl.Trajectories(pair, pair, rewards, tf.constant(mask, tf.float32), pair)


def by_the_clock(task, n_steps):
    """The tags of the trajectories that have ended, with an explicit clock."""
    ended, total = [], 0
    number, taken = np.zeros(N_PLACES, int), np.zeros(N_PLACES, int)
    while total < n_steps:
        taken += 1
        for place in range(N_PLACES):
            if taken[place] == LENGTHS[number[place], task, place]:
                ended.append(100 * number[place] + place)
                total += taken[place]
                number[place] += 1
                taken[place] = 0
    return sorted(ended)


@pytest.mark.parametrize("n_steps", [1, 20, 90])
def test_trajectories_of_steps_are_those_of_a_clock(n_steps):
    found = trajectories_of_steps(rollout, n_steps)
    # In the last case, the second task has more than 40 trajectories.
    assert found.rewards.shape == (N_TASKS, 40 if n_steps < 90 else 80, HORIZON)
    for task in range(N_TASKS):
        mask = found.mask[task].numpy()
        there = mask[:, 0] == 1
        assert mask.sum() >= n_steps
        tags = found.rewards[task].numpy().max(axis=1)
        assert sorted(tags[there]) == by_the_clock(task, n_steps)
        # Each trajectory is whole, and what fills the task up has no steps and no rewards.
        np.testing.assert_array_equal(found.rewards[task], tags[:, None] * mask)
        assert (mask[~there] == 0).all()


def test_a_test_by_steps_has_more_short_trajectories():
    keras.utils.set_random_seed(0)
    learner = rl.ProMP(
        rl.gaussian_policy(2, 2, hidden_units=(4,), initial_std=0.3),
        rl.Navigation2D(horizon=10),
        jit_compile=False,
    )
    # Some of the first goal's trajectories end soon, none of the second's.
    goals = [[0.03, 0.03], [0.5, 0.5]]
    (batch, _), *_ = learner.adapting(goals, 0, 40, 0.5, 0, n_steps=400)
    steps = batch.trajectories.mask.numpy().sum(axis=2)
    assert (steps[1] > 0).sum() == 40
    assert steps[1].sum() == 400
    assert (steps[0] > 0).sum() > 40
    assert steps[0].sum() >= 400
    whole = learner.evaluate(goals, inner_steps=0)
    parts = learner.evaluate(goals, inner_steps=1, n_steps=400)
    np.testing.assert_array_equal(parts, learner.evaluate(goals, inner_steps=1, n_steps=400))
    assert parts.shape == (2, 2)
    assert np.isfinite(parts).all()
    assert parts[0, 0] > whole[0, 0]
    with pytest.raises(ValueError, match="n_steps must be an integer ≥ 1; got 0"):
        learner.adapt(goals[0], n_steps=0)
