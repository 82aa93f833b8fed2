"""ANIL: almost no inner loop. Only the head adapts to a task."""

from __future__ import annotations

import numbers
from typing import Any

import keras
import tensorflow as tf

from tfmeta.learners.adapted_model import (
    NotCopyableError,
    copy_with_statistics,
    copy_with_values,
)
from tfmeta.learners.functional import (
    BatchNorm,
    call_on_queries,
    call_on_support,
    check_model,
    normalises_together,
    outputs_shape,
)
from tfmeta.learners.maml import MAML, State
from tfmeta.learners.meta_learner import MetaLearner


@keras.saving.register_keras_serializable("tfmeta")
class ANIL(MAML):
    """MAML whose inner steps change the head alone; the body computes features once per task.

    Deviations from the paper: those of `MAML` (the inner loss is a mean over the support set).

    Args:
        encoder: The body, any Keras 3 model from `[N, *x]` to features `[N, d]`, such as
            `tfmeta.backbones.conv4(None, …)`.
        head: What adapts: the number of outputs of a linear layer, or any Keras 3 model from
            features to `[N, n_way]` logits or `[N, *y]`.
        inner_learning_rate: Step size α of the inner gradient descent, > 0.
        inner_steps: Inner steps in meta-training.
        test_inner_steps: Inner steps elsewhere; defaults to `inner_steps`.
        first_order: Whether to ignore second derivatives.
        inner_loss: Any Keras loss; defaults to sparse categorical cross-entropy from logits.
        batch_norm: How `BatchNormalization` layers normalise; see `tfmeta.MAML`.
        inner_rule: How an inner step changes the head's weights; see `tfmeta.MAML`.
        **kwargs: As in `keras.Model`: `name`, `dtype`.

    Reference:
        Raghu, Raghu, Bengio, Vinyals (2020), Rapid Learning or Feature Reuse?,
        https://arxiv.org/abs/1909.09157, section 4: θ = (body, head), and inner steps
        head' = head − α ∇_head L(body, head; support).

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = ANIL(tfmeta.backbones.conv4(None, (28, 28, 1)), 5, inner_learning_rate=0.1)
    >>> x = np.random.rand(10, 28, 28, 1).astype("float32")
    >>> learner.adapt(x[:5], np.arange(5)).predict(x, verbose=0).shape
    (10, 5)
    """

    def __init__(
        self,
        encoder: keras.Model,
        head: int | keras.Model,
        inner_learning_rate: float = 0.01,
        inner_steps: int = 1,
        test_inner_steps: int | None = None,
        first_order: bool = False,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_rule: Any = "sgd",
        **kwargs: Any,
    ) -> None:
        check_model("encoder", encoder)
        if isinstance(head, numbers.Integral):
            dense = keras.layers.Dense(int(head), name="logits", dtype=encoder.dtype_policy)
            head = keras.Sequential([dense], name="head")
            if hasattr(encoder, "output_shape"):
                head.build(encoder.output_shape)
        check_model("head", head)
        assert isinstance(head, keras.Model)
        super().__init__(
            head,
            inner_learning_rate,
            inner_steps,
            test_inner_steps,
            first_order,
            inner_loss,
            batch_norm,
            inner_rule,
            **kwargs,
        )
        self.encoder = encoder
        if encoder.built and head.built:
            self.build(None)

    def _build_if_possible(self) -> None:
        """Not yet: the encoder is set after MAML's part of the constructor."""

    def _build_network(self, input_shape: Any) -> None:
        if not (self.encoder.built and self.network.built):
            self.network(self.encoder(keras.Input(tuple(input_shape["support_x"][2:]))))

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> State:
        """The head's weights. See `MetaLearner.adapt_task`."""
        features, statistics = self._embed(support_x, support_mask, training)
        state = super().adapt_task(features, support_y, support_mask, training)
        return {**state, "statistics": statistics}

    def predict_task(
        self,
        state: State,
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Calls body and head. See `MetaLearner.predict_task`."""
        state = dict(state)
        features = call_on_queries(
            self.encoder,
            state.pop("statistics"),
            query_x,
            batch_norm=self.batch_norm,
            mask=query_mask,
            training=training,
        )
        return super().predict_task(state, features, query_mask, training)

    def adapt_task_by_step(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        inner_steps: int,
    ) -> list[State]:
        """The head's weights after 0, 1, …, `inner_steps` inner steps."""
        features, statistics = self._embed(support_x, support_mask, training=False)
        states = super().adapt_task_by_step(features, support_y, support_mask, inner_steps)
        return [{**state, "statistics": statistics} for state in states]

    def _embed(
        self, support_x: tf.Tensor, support_mask: tf.Tensor | None, training: bool
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        return call_on_support(
            self.encoder,
            support_x,
            batch_norm=self.batch_norm,
            mask=support_mask,
            training=training,
        )

    def prediction_shape(self, example_shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the head's output for one example's features."""
        return outputs_shape(self.network, outputs_shape(self.encoder, example_shape))

    def adapted_model(self, state: State) -> keras.Model:
        """A plain Keras model: a copy of the body, and the task's head."""
        if normalises_together(self.batch_norm, self.encoder, self.network):
            return MetaLearner.adapted_model(self, state)
        try:
            encoder = copy_with_statistics(self.encoder, state["statistics"])
            head = copy_with_values(self.network, state["trainable"], state["non_trainable"])
        except NotCopyableError:
            return MetaLearner.adapted_model(self, state)
        if encoder.name == head.name:
            head.name += "_of_task"
        return keras.Sequential([encoder, head])

    def variables_of_predict(self) -> list[keras.Variable]:
        """The body's: the state holds the head's."""
        return self.encoder.variables

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["head"] = config.pop("network")
        return {**config, "encoder": keras.saving.serialize_keras_object(self.encoder)}
