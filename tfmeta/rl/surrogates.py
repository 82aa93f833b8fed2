"""Objectives of policy gradients, whose gradients are those of the expected return.

All are means over the steps that were taken, one number for each task, to be maximised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

from tfmeta.rl import gaussian
from tfmeta.rl.trajectories import Trajectories, mean_over_steps

Surrogate: TypeAlias = Callable[[tf.Tensor, Trajectories, tf.Tensor], tf.Tensor]


def ratio(outputs: tf.Tensor, trajectories: Trajectories, advantages: tf.Tensor) -> tf.Tensor:
    """Computes the importance-weighted advantage, E[π(a)/π_old(a) · A], for each task.

    The denominator is constant. At the policy that acted, the first *and* the second derivatives
    are unbiased but for small terms across steps: it is the low-variance curvature (LVC) estimator.

    Args:
        outputs: tf.Tensor `[T, N, H, 2a]`. The policy's mean and log σ.
        trajectories: Trajectories. What the old policy did.
        advantages: tf.Tensor `[T, N, H]`.

    Returns:
        tf.Tensor `[T]`.

    Reference:
        Rothfuss et al. (2019), ProMP, https://arxiv.org/abs/1810.06784, equation (9).
    """
    return mean_over_steps(_ratios(outputs, trajectories) * advantages, trajectories.mask)


def log_probability(
    outputs: tf.Tensor, trajectories: Trajectories, advantages: tf.Tensor
) -> tf.Tensor:
    """Computes E[log π(a) · A] for each task, the inner objective of MAML's published code.

    Its first derivative is unbiased. Its second derivative, which MAML's outer gradient needs, is
    not: it lacks E[∇log π ∇log πᵀ · A].

    Args:
        outputs: tf.Tensor `[T, N, H, 2a]`. The policy's mean and log σ.
        trajectories: Trajectories. What the policy did.
        advantages: tf.Tensor `[T, N, H]`.

    Returns:
        tf.Tensor `[T]`.
    """
    log_probabilities = gaussian.log_probability(outputs, trajectories.actions)
    return mean_over_steps(log_probabilities * advantages, trajectories.mask)


def clipped_ratio(
    outputs: tf.Tensor, trajectories: Trajectories, advantages: tf.Tensor, clip: float
) -> tf.Tensor:
    """Computes PPO's objective, E[min(r A, clip(r, 1 ± ε) A)] with r = π(a)/π_old(a).

    Args:
        outputs: tf.Tensor `[T, N, H, 2a]`. The policy's mean and log σ.
        trajectories: Trajectories. What the old policy did.
        advantages: tf.Tensor `[T, N, H]`.
        clip: float. ε.

    Returns:
        tf.Tensor `[T]`.
    """
    ratios = _ratios(outputs, trajectories)
    clipped = tf.clip_by_value(ratios, 1 - clip, 1 + clip)
    worse = tf.minimum(ratios * advantages, clipped * advantages)
    return mean_over_steps(worse, trajectories.mask)


def mean_kl(outputs: tf.Tensor, trajectories: Trajectories) -> tf.Tensor:
    """Computes E[KL(π_old ‖ π)] over the steps that were taken, for each task.

    Args:
        outputs: tf.Tensor `[T, N, H, 2a]`. The policy's mean and log σ.
        trajectories: Trajectories. What the old policy did.

    Returns:
        tf.Tensor `[T]`.
    """
    old = tf.stop_gradient(trajectories.outputs)
    return mean_over_steps(gaussian.kl_divergence(old, outputs), trajectories.mask)


def _ratios(outputs: tf.Tensor, trajectories: Trajectories) -> tf.Tensor:
    new = gaussian.log_probability(outputs, trajectories.actions)
    old = gaussian.log_probability(trajectories.outputs, trajectories.actions)
    return tf.exp(new - tf.stop_gradient(old))


INNER: dict[str, Surrogate] = {"ratio": ratio, "log_probability": log_probability}
