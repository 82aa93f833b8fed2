"""The Meta-LSTM: an LSTM whose cell state is the weights of the network that it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.inner_rules import InnerRule, Step, Tensors
from tfmeta.learners.functional import BatchNorm, check_model
from tfmeta.learners.maml import MAML


@keras.saving.register_keras_serializable("tfmeta")
class MetaLSTM(MAML):
    """Meta-learns an optimizer, a coordinate-wise LSTM, and the initialisation that it starts from.

    The cell state c is the base network's weights: its start c_0, the initialisation, is the
    network's own variables. See `LSTMRule` for an update.

    Deviations from the paper and its code: as in `MAML`, batch norm's shift and scale are
    meta-learned but do not adapt. In the paper, queries are normalised by their own statistics in
    meta-training, and at test by averages over the updates; here, in the `"support"` mode, by the
    support set's under the last weights in both. The first stage's biases start as Keras's (forget
    gate 1, others 0). With `inner_batch_size`, batches follow one fixed pseudo-random order. The
    paper clips gradients and takes one episode per step: in Keras that is
    `keras.optimizers.Adam(1e-3, global_clipnorm=0.25)` and `meta_batch_size=1`.

    Args:
        network: The base network, any Keras 3 model from `[N, *x]` to `[N, n_way]` logits or
            `[N, *y]`.
        inner_steps: Updates per task in meta-training (the paper: 12 for one shot).
        test_inner_steps: Updates elsewhere; defaults to `inner_steps`.
        inner_batch_size: Support examples per update; None for all of them.
        hidden_units: Hidden units of the first stage.
        forget_bias: Range from which the forget gate's bias is drawn. It starts out as
            f = sigmoid(bias).
        input_bias: Range from which the input gate's bias is drawn. It starts out as
            i = sigmoid(bias), the step size of a near gradient descent; as published about 0.01.
        first_order: Whether gradient and loss are constants to the LSTM, as published.
        inner_loss: Any Keras loss; defaults to sparse categorical cross-entropy from logits.
        batch_norm: How `BatchNormalization` layers normalise; see `tfmeta.MAML`. `"support"`, the
            default, comes nearest to the paper.
        **kwargs: As in `keras.Model`: `name`, `dtype`.

    Reference:
        Ravi, Larochelle (2017), Optimization as a Model for Few-Shot Learning,
        https://openreview.net/forum?id=rJY0-Kcll, section 3 (Algorithm 1).

    Example:

    >>> import tfmeta
    >>> learner = MetaLSTM(tfmeta.backbones.mlp(), inner_steps=3, inner_loss="mse")
    >>> learner.compile(keras.optimizers.Adam(1e-3, global_clipnorm=0.25), loss="mse")
    >>> tasks = tfmeta.data.load("sinusoid").episodes(n_shot=5, meta_batch_size=1, seed=0)
    >>> history = learner.fit(tasks, steps_per_epoch=2, shuffle=False, verbose=0)
    >>> learner.adapt([[0.0], [1.0]], [[0.0], [0.8]]).predict(tf.zeros([3, 1]), verbose=0).shape
    (3, 1)
    """

    def __init__(
        self,
        network: keras.Model,
        inner_steps: int = 12,
        test_inner_steps: int | None = None,
        inner_batch_size: int | None = None,
        hidden_units: int = 20,
        forget_bias: Sequence[float] = (4.0, 5.0),
        input_bias: Sequence[float] = (-5.0, -4.0),
        first_order: bool = True,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "support",
        **kwargs: Any,
    ) -> None:
        check_model("network", network)
        self._options: dict[str, Any] = {
            "hidden_units": hidden_units,
            "forget_bias": tuple(forget_bias),
            "input_bias": tuple(input_bias),
        }
        super().__init__(
            network,
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            first_order=first_order,
            inner_loss=inner_loss,
            batch_norm=batch_norm,
            inner_batch_size=inner_batch_size,
            inner_rule=LSTMRule(**self._options, dtype=network.dtype_policy.variable_dtype),
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("inner_learning_rate", "inner_rule"):
            del config[name]
        return {**config, **self._options}


@keras.saving.register_keras_serializable("tfmeta")
class LSTMRule(InnerRule):
    """One update of the Meta-LSTM, the same for every coordinate of the weights.

    Two stages. The first is a stock LSTM over each coordinate's four inputs x_t: gradient and
    loss, both preprocessed; its output is h_t. The second has one cell per coordinate:

        f_t = W_f [h_t, θ_{t−1}, f_{t−1}] + b_f,   i_t = W_i [h_t, θ_{t−1}, i_{t−1}] + b_i,
        θ_t = sigmoid(f_t) θ_{t−1} − sigmoid(i_t) ∇_t,

    where the gates fed back are those *before* the sigmoid, as in the paper's code (in its
    equations, after). Kernels start in U(−0.01, 0.01). Memory grows with the coordinates times
    the inner steps, by about 0.9 KiB each in meta-training.

    Args:
        hidden_units: Hidden units of the first stage.
        forget_bias: Range from which b_f is drawn.
        input_bias: Range from which b_i is drawn.
    """

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
    """Magnitude and sign of a number, both from -1 to about 1.

    Args:
        x: `[N, 1]`.
        p: Numbers below e^-p count as small.

    Returns:
        `[N, 2]`: (log|x| / p, sign x) where |x| ≥ e^-p, else (-1, e^p x).

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
    """`[coordinates, 1]`: all coordinates of all tensors."""
    return tf.concat([tf.reshape(t, [-1, 1]) for t in tensors], axis=0)
