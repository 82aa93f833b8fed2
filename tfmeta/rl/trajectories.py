"""Trajectories: what a policy did and got in the tasks of a meta-batch."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Trajectories(NamedTuple):
    """Trajectories of T tasks, N of each task, of up to H steps.

    A trajectory that ends early is filled up. The filling has the mask 0, and must not count.

    Attributes:
        observations: tf.Tensor `[T, N, H, o]`. What the policy saw before each step.
        actions: tf.Tensor `[T, N, H, a]`. What it did: the policy's action, not scaled or clipped.
        rewards: tf.Tensor `[T, N, H]`. What it got for each action.
        mask: tf.Tensor `[T, N, H]`. 1 for each step that was taken, up to the one that ended the
            trajectory; 0 for the filling after it.
        outputs: tf.Tensor `[T, N, H, 2a]`. The outputs of the policy that acted, mean and log σ.
    """

    observations: tf.Tensor
    actions: tf.Tensor
    rewards: tf.Tensor
    mask: tf.Tensor
    outputs: tf.Tensor


def total_rewards(trajectories: Trajectories) -> tf.Tensor:
    """Returns the mean sum of rewards of a trajectory, not discounted, for each task: `[T]`.

    Args:
        trajectories: Trajectories. What was collected. Those of no steps do not count.
    """
    sums = tf.reduce_sum(trajectories.rewards * trajectories.mask, axis=[1, 2])
    # The first step of each trajectory was taken, unless it is filling.
    return sums / tf.reduce_sum(trajectories.mask[:, :, 0], axis=1)


def mean_over_steps(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns the mean of values over all steps that were taken, for each task: `[T]`.

    Args:
        values: tf.Tensor `[T, N, H]`. A number for each step.
        mask: tf.Tensor `[T, N, H]`. 1 for each step that was taken.
    """
    return tf.reduce_sum(values * mask, axis=[1, 2]) / tf.reduce_sum(mask, axis=[1, 2])
