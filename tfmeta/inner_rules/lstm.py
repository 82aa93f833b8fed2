"""The update of the Meta-LSTM: an LSTM whose cell state is the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.inner_rules.rule import InnerRule, Step, Tensors


@keras.saving.register_keras_serializable("tfmeta")
class LSTMRule(InnerRule):
    """The update of the Meta-LSTM, shared by all coordinates of the weights.

    Two stages. The first is a stock LSTM over each coordinate's four inputs x_t: gradient and
    loss, both preprocessed; its output is h_t. The second has one cell per coordinate:

        f_t = W_f [h_t, θ_{t−1}, f_{t−1}] + b_f,   i_t = W_i [h_t, θ_{t−1}, i_{t−1}] + b_i,
        θ_t = sigmoid(f_t) θ_{t−1} − sigmoid(i_t) ∇_t.

    The gates are fed back as they are *before* the sigmoid, as in the paper's code; in its
    equations they are fed back after it. Kernels start in U(−0.01, 0.01). Memory grows with the
    coordinates times the inner steps, by about 0.9 KiB each in meta-training.

    Args:
        hidden_units: int. Hidden units of the first stage. Defaults to 20.
        forget_bias: (low, high), floats. Range from which b_f is drawn. Defaults to (4, 5).
        input_bias: (low, high), floats. Range from which b_i is drawn. Defaults to (-5, -4).
    """

    made_by_weight = False

    def __init__(
        self,
        hidden_units: int = 20,
        forget_bias: Sequence[float] = (4.0, 5.0),
        input_bias: Sequence[float] = (-5.0, -4.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, bias in (("forget_bias", forget_bias), ("input_bias", input_bias)):
            if len(bias) != 2 or bias[0] > bias[1]:
                raise ValueError(f"{name} must be a range (low, high); got {bias}.")
        self.hidden_units = hidden_units
        self.bias_ranges = {"forget": tuple(forget_bias), "input": tuple(input_bias)}

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        def uniform(low: float, high: float) -> keras.Initializer:
            return keras.initializers.RandomUniform(low, high)

        self.lstm = keras.layers.LSTMCell(
            self.hidden_units,
            kernel_initializer=uniform(-0.01, 0.01),
            recurrent_initializer=uniform(-0.01, 0.01),
            dtype=self.dtype_policy,
        )
        self.lstm.build((None, 4))
        self.gates = {}
        for gate, (low, high) in self.bias_ranges.items():
            self.gates[gate] = keras.layers.Dense(
                1,
                kernel_initializer=uniform(-0.01, 0.01),
                bias_initializer=uniform(low, high),
                dtype=self.dtype_policy,
                name=gate,
            )
            self.gates[gate].build((None, self.hidden_units + 2))

    def start(self, weights: Tensors) -> Any:
        zeros = [tf.zeros_like(tf.reshape(w, [-1, 1])) for w in weights]
        gate = tf.concat(zeros, axis=0)
        hidden = tf.repeat(gate, self.hidden_units, axis=1)
        return {"lstm": [hidden, hidden], "forget": gate, "input": gate}

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        theta, gradient = _column(weights), _column(gradients)
        loss = tf.fill(tf.shape(theta), tf.cast(loss, theta.dtype))
        inputs = tf.concat([preprocess(gradient), preprocess(loss)], axis=1)
        hidden, lstm = self.lstm(inputs, memory["lstm"])
        forget, update = (
            self.gates[gate](tf.concat([hidden, theta, memory[gate]], axis=1))
            for gate in ("forget", "input")
        )
        theta = tf.sigmoid(forget) * theta - tf.sigmoid(update) * gradient
        parts = tf.split(theta[:, 0], [w.shape.num_elements() for w in weights])
        new = [tf.reshape(part, w.shape) for part, w in zip(parts, weights, strict=True)]
        return new, {"lstm": lstm, "forget": forget, "input": update}

    def get_config(self) -> dict[str, Any]:
        biases = {f"{gate}_bias": bias for gate, bias in self.bias_ranges.items()}
        return {**super().get_config(), "hidden_units": self.hidden_units, **biases}


def preprocess(x: tf.Tensor, p: float = 10.0) -> tf.Tensor:
    """Turns a number into its magnitude and sign, both from -1 to about 1.

    Args:
        x: tf.Tensor `[N, 1]`.
        p: float. Numbers below e^-p count as small. Defaults to 10.

    Returns:
        `[N, 2]`: (log|x| / p, sign x) if |x| ≥ e^-p, else (-1, e^p x).

    Reference:
        Andrychowicz et al. (2016), https://arxiv.org/abs/1606.04474, appendix A.

    Example:

    >>> preprocess(tf.constant([[1.0], [0.0]])).numpy()
    array([[ 0.,  1.],
           [-1.,  0.]], dtype=float32)
    """
    smallest = tf.exp(tf.constant(-p, x.dtype))
    magnitude = tf.math.log(tf.maximum(tf.abs(x), smallest)) / p
    return tf.concat([magnitude, tf.clip_by_value(x / smallest, -1, 1)], axis=1)


def _column(tensors: Tensors) -> tf.Tensor:
    """Returns all coordinates of all tensors: `[coordinates, 1]`."""
    return tf.concat([tf.reshape(t, [-1, 1]) for t in tensors], axis=0)
