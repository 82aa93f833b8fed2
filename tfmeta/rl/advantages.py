"""How much better each action was than expected: returns, a linear baseline and GAE."""

from __future__ import annotations

import tensorflow as tf

from tfmeta.rl.trajectories import Trajectories, mean_over_steps

# Observations beyond it are clipped in the baseline's features.
LARGEST_FEATURE = 10.0
RIDGE = 1e-5
EPSILON = 1e-8


def discounted_sums(values: tf.Tensor, discount: float) -> tf.Tensor:
    """Sums values from each step on: Σ_{k ≥ t} discount^{k − t} v_k.

    Args:
        values: tf.Tensor `[…, H]`. A number for each step; 0 for filling.
        discount: float in [0, 1].

    Returns:
        tf.Tensor `[…, H]`.

    Example:

    >>> discounted_sums(tf.constant([1.0, 2.0, 4.0]), 0.5).numpy().tolist()
    [3.0, 4.0, 4.0]
    """
    steps = tf.range(tf.shape(values)[-1])
    later = steps[:, None] - steps[None, :]
    powers = tf.pow(tf.cast(discount, values.dtype), tf.cast(tf.maximum(later, 0), values.dtype))
    weights = tf.where(later >= 0, powers, tf.zeros([], values.dtype))
    shape = tf.shape(values)
    sums = tf.reshape(values, [-1, shape[-1]]) @ weights
    return tf.ensure_shape(tf.reshape(sums, shape), values.shape)


def baseline_features(observations: tf.Tensor) -> tf.Tensor:
    """Returns the features of the linear baseline: s, s², t, t², t³ and 1, with t in 100 steps.

    Args:
        observations: tf.Tensor `[…, H, o]`.

    Returns:
        tf.Tensor `[…, H, 2o + 4]`.
    """
    clipped = tf.clip_by_value(observations, -LARGEST_FEATURE, LARGEST_FEATURE)
    time = tf.cast(tf.range(tf.shape(observations)[-2]), observations.dtype)[:, None] / 100
    time = tf.zeros_like(observations[..., :1]) + time
    ones = tf.ones_like(time)
    return tf.concat([clipped, clipped**2, time, time**2, time**3, ones], axis=-1)


def fit_baseline(features: tf.Tensor, targets: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Fits a linear function to each task's returns, by least squares with a ridge of 1e-5.

    Args:
        features: tf.Tensor `[T, N, H, f]`.
        targets: tf.Tensor `[T, N, H]`.
        mask: tf.Tensor `[T, N, H]`. Steps with 0 do not count.

    Returns:
        tf.Tensor `[T, N, H]`: the fitted values.
    """
    # Sums of t³ over thousands of steps lose the small eigenvalues in float32.
    x = tf.cast(features, tf.float64)
    weighted = x * tf.cast(mask, tf.float64)[..., None]
    gram = tf.einsum("tnhf,tnhg->tfg", weighted, x)
    moment = tf.einsum("tnhf,tnh->tf", weighted, tf.cast(targets, tf.float64))
    eye = tf.eye(x.shape[-1], dtype=tf.float64)
    # Of a policy that diverged, the solver would only say that a matrix is not invertible.
    finite = tf.reduce_all(tf.math.is_finite(gram), axis=[1, 2], keepdims=True)
    gram = tf.where(finite, gram + RIDGE * eye, eye)
    coefficients = tf.linalg.solve(gram, moment[..., None])[..., 0]
    return tf.cast(tf.einsum("tnhf,tf->tnh", x, coefficients), targets.dtype)


def generalized_advantages(
    rewards: tf.Tensor, values: tf.Tensor, mask: tf.Tensor, discount: float, gae_lambda: float
) -> tf.Tensor:
    """Computes generalised advantage estimates; the value after a trajectory's end is 0.

    Args:
        rewards: tf.Tensor `[T, N, H]`.
        values: tf.Tensor `[T, N, H]`. The baseline of each step's observation.
        mask: tf.Tensor `[T, N, H]`. Steps with 0 do not count.
        discount: float in [0, 1]. γ.
        gae_lambda: float in [0, 1]. λ; with 1, the advantage is return minus baseline.

    Returns:
        tf.Tensor `[T, N, H]`: 0 for filling.

    Reference:
        Schulman et al. (2016), https://arxiv.org/abs/1506.02438, equation (16).
    """
    values = values * mask
    following = tf.concat([values[..., 1:], tf.zeros_like(values[..., :1])], axis=-1)
    errors = (rewards * mask + discount * following - values) * mask
    return discounted_sums(errors, discount * gae_lambda) * mask


def advantages(trajectories: Trajectories, discount: float, gae_lambda: float) -> tf.Tensor:
    """Computes the advantages of all actions, normalised for each task.

    The baseline is fitted to the trajectories of the task themselves.

    Args:
        trajectories: Trajectories. What was collected.
        discount: float in [0, 1]. γ.
        gae_lambda: float in [0, 1]. λ.

    Returns:
        tf.Tensor `[T, N, H]`. Each task's mean is 0 and standard deviation 1; 0 for filling.
    """
    observations, _, rewards, mask, _ = trajectories
    returns = discounted_sums(rewards * mask, discount)
    values = fit_baseline(baseline_features(observations), returns, mask)
    estimates = generalized_advantages(rewards, values, mask, discount, gae_lambda)
    mean = mean_over_steps(estimates, mask)[:, None, None]
    variance = mean_over_steps((estimates - mean) ** 2, mask)[:, None, None]
    return (estimates - mean) / (tf.sqrt(variance) + EPSILON) * mask
