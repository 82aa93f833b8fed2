"""An initial set of configurations, learned by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfmeta.checks import check_integer, check_positive


def soft_minimum(losses: tf.Tensor, sharpness: float) -> tf.Tensor:
    """Returns a mean of losses over the first axis in which low losses weigh most.

    Args:
        losses: `[I, …]`.
        sharpness: float > 0. β. Tends to the minimum as it grows, to the mean as it falls to 0.

    Returns:
        `[…]`. Σ ℓ softmax(−β ℓ).
    """
    return tf.reduce_sum(losses * tf.nn.softmax(-sharpness * losses, axis=0), axis=0)


def learn_initial_set(
    surrogates: Sequence[Callable[[tf.Tensor], tf.Tensor]],
    size: int,
    n_inputs: int,
    *,
    sharpness: float = 50.0,
    steps: int = 200,
    learning_rate: float = 0.02,
    restarts: int = 8,
    seed: int = 0,
) -> np.ndarray:
    """Learns the configurations of which the best is good in each past task.

    Gradient descent (Adam) moves all of them together, to lower the soft minimum of their losses,
    on average over the tasks. Of several random starts the best is returned. `SearchSpace.decode`
    makes configurations of the points, which are then the nearest allowed values.

    Args:
        surrogates: sequence of Callable. For each past task, a differentiable model from float64
            points `[N, d]` to expected losses `[N]`; lower is better. Tasks should have the same
            scale.
        size: int ≥ 1. The number of configurations, I.
        n_inputs: int ≥ 1. The number of coordinates of a point, d.
        sharpness: float > 0. β of the soft minimum. Defaults to 50, for losses from 0 to 1.
        steps: int ≥ 1. Steps of Adam. Defaults to 200.
        learning_rate: float > 0. Adam's. Defaults to 0.02.
        restarts: int ≥ 1. Random starts. Defaults to 8.
        seed: int. Of the starts. Defaults to 0.

    Returns:
        float64 `[I, d]`, in `[0, 1]`. The one with the lowest mean loss comes first.

    Raises:
        ValueError: If there is no surrogate, or an option does not fit.

    Reference:
        Wistuba, Schilling & Schmidt-Thieme (2015), "Learning hyperparameter optimization
        initializations", DSAA.

    Example:

    >>> tasks = [lambda x: (x[:, 0] - 0.2) ** 2, lambda x: (x[:, 0] - 0.7) ** 2]
    >>> points = learn_initial_set(tasks, 2, n_inputs=1, restarts=2)
    >>> np.sort(points[:, 0]).round(2)
    array([0.2, 0.7])
    """
    if not surrogates:
        raise ValueError("surrogates must have a model for each past task; got none.")
    for name, value in (("size", size), ("n_inputs", n_inputs), ("steps", steps)):
        check_integer(name, value, 1)
    check_integer("restarts", restarts, 1)
    check_positive("sharpness", sharpness)
    check_positive("learning_rate", learning_rate)
    starts = np.random.default_rng(seed).uniform(size=(size, restarts, n_inputs))
    points = keras.Variable(starts, dtype="float64")
    optimizer = keras.optimizers.Adam(learning_rate)
    optimizer.build([points])

    def losses() -> tf.Tensor:
        """Returns the losses `[size, restarts, tasks]`."""
        flat = tf.reshape(points.value, (-1, n_inputs))
        columns = tf.stack([surrogate(flat) for surrogate in surrogates], axis=-1)
        return tf.reshape(columns, (size, restarts, len(surrogates)))

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            # The restarts do not depend on each other, so their sum has the gradient of each.
            loss = tf.reduce_sum(tf.reduce_mean(soft_minimum(losses(), sharpness), axis=-1))
        optimizer.apply_gradients([(tape.gradient(loss, points.value), points)])
        points.assign(tf.clip_by_value(points.value, 0.0, 1.0))

    for _ in range(steps):
        step()
    final = losses().numpy()
    best = int(final.min(axis=0).mean(axis=-1).argmin())
    order = final[:, best].mean(axis=-1).argsort()
    return points.numpy()[order, best]
