"""ANIL: almost no inner loop. Only the head adapts to a task."""

from __future__ import annotations

import numbers
from typing import Any

import keras
import tensorflow as tf

from tfmeta.learners.inner_loop import InnerLoopLearner, State
from tfmeta.networks import (
    BatchNorm,
    Normalization,
    call_shared_network,
    check_network,
    copy_with_statistics,
    copy_with_values,
    normalises_together,
    output_shape,
    prepare_network,
)


@keras.saving.register_keras_serializable("tfmeta")
class ANIL(InnerLoopLearner):
    """MAML whose inner steps change the head alone; the body computes features once per task.

    Deviations from the paper: those of `MAML` (the inner loss is a mean over the support set).

    Args:
        encoder: keras.Model. The body, any Keras 3 model from `[N, *x]` to features `[N, d]`, such
            as `tfmeta.backbones.conv4(None, …)`.
        head: int or keras.Model. What adapts: the number of outputs of a linear layer, or any
            Keras 3 model from features to `[N, n_way]` logits or `[N, *y]`.
        inner_learning_rate: float > 0. Step size α of the inner steps. Defaults to 0.01.
        inner_steps: int ≥ 0. Inner steps in meta-training. Defaults to 1.
        test_inner_steps: int ≥ 0 or None. Inner steps elsewhere. Defaults to None, `inner_steps`.
        first_order: bool. Whether to ignore second derivatives. Defaults to False.
        inner_loss: str, function or keras.losses.Loss. See `tfmeta.MAML`. Defaults to None, sparse
            categorical cross-entropy from logits.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        inner_rule: str, dict or InnerRule. How an inner step changes the head's weights; see
            `tfmeta.MAML`. Defaults to `"sgd"`.
        inner_batch_size: int ≥ 1 or None. Support examples per inner step. Defaults to None, all.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`.

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

    takes = "encoder"

    def __init__(
        self,
        encoder: keras.Model,
        head: int | keras.Model,
        inner_learning_rate: float = 0.01,
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
        check_network("encoder", encoder)
        prepare_network(encoder)
        if isinstance(head, numbers.Integral):
            dense = keras.layers.Dense(int(head), name="logits", dtype=encoder.dtype_policy)
            head = keras.Sequential([dense], name="head")
            if hasattr(encoder, "output_shape"):
                head.build(encoder.output_shape)
        check_network("head", head)
        assert isinstance(head, keras.Model)
        super().__init__(
            head,
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
        self.encoder = encoder
        self.build_if_possible()

    @property
    def head(self) -> keras.Model:
        """The network that adapts."""
        return self.network

    def __dir__(self) -> list[str]:
        # Keras saves the layer under each of these names, and files have the head as `network`.
        return [name for name in super().__dir__() if name != "head"]

    # === The algorithm ===

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> State:
        """Takes inner steps of the head on features. See `MetaLearner.adapt_task`."""
        features, statistics = self._embed_support(support_x, support_mask, training)
        state = super().adapt_task(features, support_y, support_mask, training, n_way)
        return {**state, "statistics": statistics}

    def predict_task(
        self,
        state: State,
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Calls body and head. See `MetaLearner.predict_task`."""
        features = self._embed_queries(state["statistics"], query_x, query_mask, training)
        return self.predict_with_weights(state, features, query_mask, training)

    def predict_task_by_step(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None,
        inner_steps: int,
        n_way: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Predicts after each step of the head. See `MetaLearner.predict_task_by_step`."""
        support, statistics = self._embed_support(support_x, support_mask, training=False)
        queries = self._embed_queries(statistics, query_x, query_mask, training=False)
        return super().predict_task_by_step(
            support, support_y, support_mask, queries, query_mask, inner_steps
        )

    def forward(
        self,
        state: State,
        x: tf.Tensor,
        normalization: Normalization,
        mask: tf.Tensor | None,
        training: bool,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Calls the head on features, with a task's weights."""
        weights = {name: state[name] for name in ("trainable", "non_trainable")}
        return super().forward(weights, x, normalization, mask, training)

    def _embed_support(
        self, support_x: tf.Tensor, support_mask: tf.Tensor | None, training: bool
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        return call_shared_network(
            self.encoder,
            support_x,
            part="support",
            batch_norm=self.batch_norm,
            mask=support_mask,
            training=training,
        )

    def _embed_queries(
        self,
        statistics: list[tf.Tensor],
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None,
        training: bool,
    ) -> tf.Tensor:
        features, _ = call_shared_network(
            self.encoder,
            query_x,
            part="queries",
            batch_norm=self.batch_norm,
            statistics=statistics,
            mask=query_mask,
            training=training,
        )
        return features

    # === What others want to know ===

    def first_not_finite(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tuple[int, str] | None:
        features, _ = self._embed_support(support_x, support_mask, training=training)
        return super().first_not_finite(features, support_y, support_mask, training)

    def networks_are_built(self) -> bool:
        return self.encoder.built and self.head.built

    def call_networks(self, x: Any) -> Any:
        return self.head(self.encoder(x))

    def input_network(self) -> keras.Model:
        return self.encoder

    def prediction_shape(self, example_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the head's output for one example's features."""
        return output_shape(self.head, output_shape(self.encoder, example_shape))

    def plain_model(self, state: State) -> keras.Model | None:
        """Makes a copy of the body with the task's head on it."""
        if normalises_together(self.batch_norm, self.encoder, self.head):
            return None
        encoder = copy_with_statistics(self.encoder, state["statistics"])
        head = copy_with_values(self.head, state["trainable"], state["non_trainable"])
        if encoder.name == head.name:
            head.name += "_of_task"
        return keras.Sequential([encoder, head])

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables of the body: the state holds those of the head."""
        return self.encoder.variables
