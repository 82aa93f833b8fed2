"""Finds values that are not finite in what a task has become."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.contract import Contract

# From values of a state on whose mean square is above this, predictions may overflow: they are
# tried on the support set. Weights and features are usually around 1.
LARGE = 1e8


def mean_squares(state: Any) -> tf.Tensor:
    """Returns the mean square of each tensor of floats in a state, float64 `[n_tensors]`."""
    floats = [leaf for leaf in keras.tree.flatten(state) if leaf.dtype.is_floating]
    squares = [
        tf.reduce_sum(tf.square(tf.cast(leaf, tf.float64)))
        / tf.cast(tf.maximum(tf.size(leaf), 1), tf.float64)
        for leaf in floats
    ]
    return tf.stack(squares) if squares else tf.zeros([0], tf.float64)


def check_adapted(
    learner: Contract,
    support_x: tf.Tensor,
    support_y: tf.Tensor,
    state: Any,
    sizes: np.ndarray,
) -> None:
    """Raises a ValueError if a learned task, or its predictions, are not finite.

    Args:
        learner: Contract. The learner.
        support_x: tf.Tensor `[S, *x]`. The support set; likewise the next.
        support_y: tf.Tensor `[S, …]`.
        state: What `adapt_task` returned.
        sizes: np.ndarray. What `mean_squares` returned.
    """
    if np.isfinite(sizes).all() and not (sizes > LARGE).any():
        return
    if np.isfinite(sizes).all():
        predictions = learner.predict_task(state, support_x)
        if bool(tf.reduce_all(tf.math.is_finite(predictions))):
            return
        what, found = "predictions that are not finite", None
    else:
        what = "values that are not finite"
        found = learner.first_not_finite(support_x, support_y)
    for variable in learner.variables:
        values = variable.numpy()
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ValueError(
                f"This {type(learner).__name__} cannot adapt: its own variable {variable.path!r} "
                "is not finite. Meta-train it anew, with lower learning rates."
            )
    where = "" if found is None else f" after inner step {found[0]}"
    rate = getattr(learner, "inner_learning_rate", None)
    way_out = "bring the examples and targets to numbers around 1"
    if rate is not None:
        way_out = f"lower inner_learning_rate (now {rate:.4g}), or {way_out}"
    raise ValueError(f"Adapting diverged: it gives {what}{where}; {way_out}.")
