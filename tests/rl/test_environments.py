"""2-D navigation: its rules by hand, and the graph's rollout beside Gymnasium's."""

import numpy as np
import pytest
import tensorflow as tf

from tfmeta import rl


def act(x):
    """A policy that heads for (1, 1) with some noise."""
    return tf.concat([1 - 2 * x, tf.fill(tf.shape(x), -1.5)], axis=-1)


def test_steps_by_hand():
    env = rl.Navigation2D()
    goals = tf.constant([[0.25, -0.1]])
    state = env.reset(goals, 1, tf.constant([0, 0]))
    # The policy's 1 is a move of 0.1; beyond, it is clipped.
    for action, position, done in (
        ([1.0, -0.5], [0.1, -0.05], False),
        ([7.0, -0.35], [0.2, -0.085], False),
        ([0.45, 0.0], [0.245, -0.085], False),
        ([0.0, -0.1], [0.245, -0.095], True),
    ):
        state, reward, is_done = env.step(goals, state, tf.constant([[action]]))
        np.testing.assert_allclose(state[0, 0], position, atol=1e-7)
        distance = np.hypot(position[0] - 0.25, position[1] + 0.1)
        np.testing.assert_allclose(reward[0, 0], -distance, atol=1e-6)
        assert bool(is_done[0, 0]) is done


def test_the_published_goals_are_known_and_standing_still_scores_low():
    goals = rl.Navigation2D.published_tasks()
    assert goals.shape == (40, 2)
    # NumPy's documentation of the old generator promises these numbers for ever.
    np.testing.assert_allclose(goals[0], [0.417022 - 0.5, 0.720324 - 0.5], atol=1e-6)
    assert round(-100 * np.linalg.norm(goals, axis=1).mean(), 1) == -40.1


def test_a_rollout_masks_what_comes_after_the_end():
    env = rl.Navigation2D(horizon=20)
    goals = tf.constant([[0.1, 0.1], [0.45, 0.45]])

    def straight(x):
        return tf.concat([tf.ones_like(x), tf.fill(tf.shape(x), -20.0)], axis=-1)

    trajectories = env.rollout(straight, goals, 3, tf.constant([0, 1]))
    assert trajectories.observations.shape == (2, 3, 20, 2)
    # The first goal is reached in one step; the second is passed at 0.4 and 0.5.
    np.testing.assert_array_equal(tf.reduce_sum(trajectories.mask, axis=2), [[1] * 3, [20] * 3])
    np.testing.assert_allclose(trajectories.rewards[0, :, 0], 0, atol=1e-6)
    assert (trajectories.rewards[0, :, 1:].numpy() == 0).all()
    np.testing.assert_allclose(trajectories.rewards[1, 0, 3], -np.hypot(0.05, 0.05), atol=1e-6)


def test_gymnasium_collects_the_trajectories_of_the_graph():
    pytest.importorskip("gymnasium", reason="Gymnasium is not installed")
    graph = rl.Navigation2D(horizon=30)
    stepwise = rl.GymnasiumEnvironment(
        rl.NavigationVectorEnv,
        lambda n, rng: rng.uniform(-0.5, 0.5, (n, 2)),
        observation_size=2,
        action_size=2,
        task_size=2,
        horizon=30,
        name="navigation",
    )
    # The policy reaches the first goal in some trajectories, and never the others.
    goals = tf.constant([[0.45, 0.45], [-0.3, 0.2]])
    compiled = tf.function(graph.rollout, autograph=False)
    expected = compiled(act, goals, 4, tf.constant([3, 1]))
    found = stepwise.rollout(act, goals, 4, tf.constant([3, 1]))
    for name in rl.Trajectories._fields:
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), atol=1e-5, err_msg=name
        )
    assert 0 < expected.mask[0].numpy().mean() < 1
    tasks = stepwise.sample_tasks(5, tf.constant([1, -7]))
    assert tasks.shape == (5, 2)


def test_gymnasium_s_own_checks_accept_the_vector_environment():
    gymnasium = pytest.importorskip("gymnasium", reason="Gymnasium is not installed")
    env = rl.NavigationVectorEnv(np.zeros([3, 2]))
    observations, _ = env.reset(seed=0)
    assert env.observation_space.contains(observations)
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.action_space.contains(env.action_space.sample())
    with pytest.raises(ValueError, match=r"goals must be an array \[n, 2\]; got \[2\]"):
        rl.NavigationVectorEnv([0.0, 0.0])


def test_a_half_cheetah_is_paid_for_its_direction(tmp_path, monkeypatch):
    pytest.importorskip("mujoco", reason="MuJoCo is not installed")
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings into a file there.
    environment = rl.half_cheetah_direction(horizon=5)

    def still(x):
        return tf.concat([tf.zeros([*x.shape[:-1], 6]), tf.fill([*x.shape[:-1], 6], -1.0)], -1)

    trajectories = environment.rollout(still, [[1.0], [-1.0]], 1, tf.constant([0, 0]))
    assert trajectories.observations.shape == (2, 1, 5, 17)
    assert (trajectories.mask.numpy() == 1).all()
    cost = 0.05 * np.square(np.clip(trajectories.actions, -1, 1)).sum(axis=-1)
    velocity = (trajectories.rewards + cost) * np.array([1.0, -1.0])[:, None, None]
    # Gymnasium's observation has the velocity of the torso after each step; the reward's is the
    # mean over the step.
    after = trajectories.observations[:, :, 1:, 8].numpy().ravel()
    assert np.corrcoef(velocity.numpy()[:, :, :-1].ravel(), after)[0, 1] > 0.8


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([0.1, 0.2], r"array \[n_tasks, 2\]; got the shape \[2\]"),
        ([[0.1, 0.2, 0.3]], r"array \[n_tasks, 2\]; got the shape \[1, 3\]"),
        ([[np.nan, 0]], "finite"),
    ],
)
def test_tasks_of_another_shape_are_refused(tasks, message):
    with pytest.raises(ValueError, match=message):
        rl.Navigation2D().check_tasks(tasks)
