"""The loss with which Relation Networks were published."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfmeta")
class OneHotSquaredError(keras.losses.Loss):
    """Computes the mean squared error between scores and one-hot labels.

    The mean is over the columns of the scores. In a meta-batch whose tasks have different numbers
    of classes, these are as many as the largest task has classes, so each score of a smaller task
    counts for less than if that task were alone.

    Args:
        **kwargs: As in `keras.losses.Loss`: `reduction`, `name`.

    Example:

    >>> round(float(OneHotSquaredError()([[1]], [[[0.0, 0.5, 1.0]]])), 4)
    0.4167
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("name", "one_hot_squared_error")
        super().__init__(**kwargs)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns `[…]`, from labels `[…]` and scores `[…, n_way]`.

        Raises:
            ValueError: If there is not one label for each row of scores.
        """
        y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
        ranks = y_true.shape.rank, y_pred.shape.rank
        if None not in ranks and ranks[0] != ranks[1] - 1:
            raise ValueError(
                f"This loss takes labels of shape {tuple(y_pred.shape[:-1])} for scores of shape "
                f"{tuple(y_pred.shape)}; got {tuple(y_true.shape)}. For regression, compile with "
                'a loss for values, for example loss="mse".'
            )
        labels = tf.one_hot(tf.cast(y_true, tf.int32), tf.shape(y_pred)[-1], dtype=y_pred.dtype)
        return tf.reduce_mean(tf.square(y_pred - labels), axis=-1)
