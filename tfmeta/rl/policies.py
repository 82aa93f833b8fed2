"""Policies as pure functions of their weights: each task has its own."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.networks import batch_norm_layers, call_network, check_network, values_of
from tfmeta.rl.task_means import at_once


def check_policy(policy: Any, observation_size: int, action_size: int) -> None:
    """Checks that a policy fits an environment.

    Args:
        policy: keras.Model. The policy.
        observation_size: int. Numbers in the environment's observations.
        action_size: int. Numbers in its actions.

    Raises:
        ValueError: If it is no Keras model from `[N, observation_size]` to `[N, 2 * action_size]`,
            or has batch normalisation.
    """
    check_network("policy", policy)
    shapes = getattr(policy, "input_shape", None), getattr(policy, "output_shape", None)
    if shapes != ((None, observation_size), (None, 2 * action_size)):
        raise ValueError(
            f"policy must be a model from observations [N, {observation_size}] to means and log σ "
            f"of actions [N, {2 * action_size}]; {policy.name!r} is one from {shapes[0]} to "
            f"{shapes[1]}. See tfmeta.rl.gaussian_policy."
        )
    if batch_norm_layers(policy):
        raise ValueError(
            f"policy must have no batch normalisation, because actions are chosen one at a time; "
            f"{policy.name!r} has some: use layer normalisation."
        )


def start_weights(policy: keras.Model, n_tasks: int) -> list[tf.Tensor]:
    """Returns the policy's trainable weights, once for each task: `[T, …]` each.

    Args:
        policy: keras.Model. The policy.
        n_tasks: int. T.
    """
    return [repeated(w, n_tasks) for w in policy.trainable_variables]


def repeated(x: Any, n_tasks: int) -> tf.Tensor:
    """Returns a value for each task, `[T, …]`, from which gradients flow back to the one value."""
    x = tf.convert_to_tensor(x)
    return tf.broadcast_to(x[None], [n_tasks, *x.shape])


def call_policies(policy: keras.Model, weights: list[tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """Calls a policy with each task's weights, for all tasks at once.

    Args:
        policy: keras.Model. The policy.
        weights: list of tf.Tensor `[T, …]`. Values of its trainable variables.
        x: tf.Tensor `[T, …, o]`. Observations.

    Returns:
        tf.Tensor `[T, …, 2a]`: means and log σ.
    """
    _, non_trainable = values_of(policy)

    def call(task: tuple[list[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        outputs, _ = call_network(
            policy, task[0], non_trainable, task[1], normalization="moving", training=False
        )
        return outputs

    n_tasks, size = x.shape[0], x.shape[-1]
    rows = tf.reshape(x, [n_tasks, -1, size])
    outputs = at_once(call, (weights, rows))
    shape = tf.concat([tf.shape(x)[:-1], [outputs.shape[-1]]], axis=0)
    return tf.ensure_shape(tf.reshape(outputs, shape), [*x.shape[:-1], outputs.shape[-1]])
