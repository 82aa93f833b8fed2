"""The Meta-LSTM: an LSTM whose cell state is the weights of the network that it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfmeta.checks import check_model
from tfmeta.inner_rules import LSTMRule
from tfmeta.learners.inner_loop import InnerLoopLearner
from tfmeta.networks import BatchNorm


@keras.saving.register_keras_serializable("tfmeta")
class MetaLSTM(InnerLoopLearner):
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
        network: keras.Model. The base network; see `tfmeta.MAML`.
        inner_steps: int ≥ 0. Updates per task in meta-training (the paper: 12 for one shot).
            Defaults to 12.
        test_inner_steps: int ≥ 0 or None. Updates elsewhere. Defaults to None, `inner_steps`.
        inner_batch_size: int ≥ 1 or None. Support examples per update. Defaults to None, all.
        hidden_units: int. Hidden units of the first stage. Defaults to 20.
        forget_bias: (low, high), floats. Range from which the forget gate's bias is drawn; the gate
            starts out as f = sigmoid(bias). Defaults to (4, 5).
        input_bias: (low, high), floats. Range from which the input gate's bias is drawn. The gate
            starts out as i = sigmoid(bias), the step size of a near gradient descent; as published
            about 0.01. Defaults to (-5, -4).
        first_order: bool. Whether gradient and loss are constants to the LSTM, as published.
            Defaults to True.
        inner_loss: str, function or keras.losses.Loss. See `tfmeta.MAML`. Defaults to None, sparse
            categorical cross-entropy from logits.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"support"`, which comes nearest to the paper.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`.

    Reference:
        Ravi, Larochelle (2017), Optimization as a Model for Few-Shot Learning,
        https://openreview.net/forum?id=rJY0-Kcll, section 3 (Algorithm 1).

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = MetaLSTM(tfmeta.backbones.mlp(), inner_steps=3, inner_loss="mse")
    >>> learner.compile(keras.optimizers.Adam(1e-3, global_clipnorm=0.25), loss="mse")
    >>> tasks = tfmeta.data.load("sinusoid").episodes(n_shot=5, meta_batch_size=1, seed=0)
    >>> history = learner.fit(tasks, steps_per_epoch=2, shuffle=False, verbose=0)
    >>> learner.adapt([[0.0], [1.0]], [[0.0], [0.8]]).predict(np.zeros([3, 1]), verbose=0).shape
    (3, 1)
    """

    def __init__(
        self,
        network: keras.Model,
        *,
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
        super().__init__(
            network,
            kwargs,
            inner_learning_rate=1.0,  # Ignored: the rule's step sizes start from input_bias.
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            first_order=first_order,
            inner_loss=inner_loss,
            batch_norm=batch_norm,
            inner_rule=LSTMRule(
                hidden_units,
                forget_bias,
                input_bias,
                dtype=network.dtype_policy.variable_dtype,
            ),
            inner_batch_size=inner_batch_size,
        )
        self.hidden_units = hidden_units
        self.forget_bias, self.input_bias = tuple(forget_bias), tuple(input_bias)
        self.build_if_possible()
