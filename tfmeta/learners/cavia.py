"""CAVIA: only a few context parameters adapt to a task, the network is shared by all tasks."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.learners.inner_loop import InnerLoopLearner, State
from tfmeta.networks import (
    BatchNorm,
    Normalization,
    call_network,
    copy_with_values,
    normalises_together,
    repeated,
    values_of,
)


@keras.saving.register_keras_serializable("tfmeta")
class CAVIA(InnerLoopLearner):
    """Adapts context parameters, an extra input of the network, which start at zero in each task.

    Deviations from the paper: those of `MAML` (the inner loss is a mean over the support set).

    Args:
        network: keras.Model. A functional Keras model with two inputs `[x, context]`, `[N, *x]` and
            `[N, n_context]`, to `[N, n_way]` logits or `[N, *y]`, such as
            `tfmeta.backbones.film_conv4` and `tfmeta.backbones.mlp(…, n_context=5)`.
        inner_learning_rate: float > 0. Step size α of the inner steps. Defaults to 1.0.
        inner_steps: int ≥ 0. Inner steps in meta-training. Defaults to 1.
        test_inner_steps: int ≥ 0 or None. Inner steps elsewhere. Defaults to None, `inner_steps`.
        first_order: bool. Whether to ignore second derivatives. Defaults to False.
        inner_loss: str, function or keras.losses.Loss. See `tfmeta.MAML`. Defaults to None, sparse
            categorical cross-entropy from logits.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        inner_rule: str, dict or InnerRule. How an inner step changes the context; see
            `tfmeta.MAML`. Defaults to `"sgd"`.
        inner_batch_size: int ≥ 1 or None. Support examples per inner step. Defaults to None, all.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`.

    Reference:
        Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson (2019), Fast Context Adaptation via
        Meta-Learning, https://arxiv.org/abs/1810.03642. Equations (5) and (6):
        φ' = φ_0 − α ∇_φ L(φ, θ; support) from φ_0 = 0, and min_θ Σ_tasks L(φ', θ; query).

    Example:

    >>> import tfmeta
    >>> learner = CAVIA(tfmeta.backbones.mlp(n_context=4), inner_loss="mse")
    >>> learner.compile(optimizer="adam", loss="mse")
    >>> tasks = tfmeta.data.load("sinusoid").episodes(n_shot=5, meta_batch_size=4, seed=0)
    >>> history = learner.fit(tasks, steps_per_epoch=2, shuffle=False, verbose=0)
    >>> learner.adapt([[0.0], [1.0]], [[0.0], [0.8]]).predict(tf.zeros([3, 1]), verbose=0).shape
    (3, 1)
    """

    n_inputs = 2

    def __init__(
        self,
        network: keras.Model,
        inner_learning_rate: float = 1.0,
        *,
        inner_steps: int = 1,
        test_inner_steps: int | None = None,
        first_order: bool = False,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_rule: Any = "sgd",
        inner_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        shapes = getattr(network, "input_shape", None)
        if not (isinstance(shapes, list) and len(shapes) == 2 and len(shapes[1]) == 2):
            raise ValueError(
                "CAVIA's network must be a functional Keras model with the two inputs "
                f"[x [N, *x], context [N, n_context]]; this one's input shapes are {shapes}."
            )
        super().__init__(
            network,
            kwargs,
            inner_learning_rate=inner_learning_rate,
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            first_order=first_order,
            inner_loss=inner_loss,
            batch_norm=batch_norm,
            inner_rule=inner_rule,
            inner_batch_size=inner_batch_size,
        )
        self.build_if_possible()

    def start_weights(self) -> tuple[list[Any], list[bool]]:
        """Returns the context φ_0 = 0, which adapts."""
        _, (_, n_context) = self.network.input_shape
        return [tf.zeros([n_context], self.variable_dtype)], [True]

    def forward(
        self,
        state: State,
        x: tf.Tensor,
        normalization: Normalization,
        mask: tf.Tensor | None,
        training: bool,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Calls the shared network on examples and the task's context."""
        (context,) = state["trainable"]
        return call_network(
            self.network,
            values_of(self.network)[0],
            state["non_trainable"],
            [x, tf.repeat(context[None], tf.shape(x)[0], axis=0)],
            normalization=normalization,
            mask=mask,
            training=training,
        )

    def prediction_shape(self, example_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the network's output for one example and context."""
        return tuple(self.network.output_shape[1:])

    def plain_model(self, state: State) -> keras.Model | None:
        """Makes a copy of the network with the task's context built in."""
        if normalises_together(self.batch_norm, self.network):
            return None
        values = values_of(self.network)[0], state["non_trainable"]
        network = copy_with_values(self.network, *values)
        x = keras.Input(network.input_shape[0][1:], dtype=self.variable_dtype)
        return keras.Model(x, network([x, repeated(x, state["trainable"][0])]))

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables of the network: the state holds the context."""
        return self.network.variables
