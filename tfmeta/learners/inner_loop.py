"""The base class of MAML and all other learners that take inner steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfmeta import inner_rules
from tfmeta.checks import check_integer, check_model, check_positive
from tfmeta.learners.contract import constructor_arguments
from tfmeta.learners.gradients import gradients_of
from tfmeta.learners.inner_batches import Support, mean_loss, support_batch
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.learners.steps import predictions_by_step
from tfmeta.learners.task_inputs import check_labels
from tfmeta.networks import (
    BatchNorm,
    Normalization,
    batch_norm_layers,
    call_network,
    carry_over,
    check_batch_norm,
    collecting_losses,
    constrained,
    copy_with_values,
    normalises_together,
    normalization,
    output_shape,
    prepare_network,
    sum_of,
    values_of,
)

# A task's weights: values in the order of the network's (non-)trainable variables.
State = dict[str, Any]


class InnerLoopLearner(MetaLearner):
    """Base class: inner steps change a network's weights, from a meta-learned start.

    A subclass passes each of its options by name, and those of Keras, `name` and `dtype`, as
    `keras_options`, so that an option it does not have is refused by name. It overrides
    `start_weights` and `forward` if something other than the network's weights adapts.

    Args:
        network: keras.Model. The base network.
        keras_options: dict. Options of `keras.Model`; the dtype defaults to the network's.
        inner_learning_rate: float > 0. Step size of the inner steps.
        inner_steps: int ≥ 0. Inner steps in meta-training.
        test_inner_steps: int ≥ 0 or None. Inner steps elsewhere; `inner_steps` if None.
        first_order: bool. Whether to ignore second derivatives.
        inner_loss: Any Keras loss; sparse categorical cross-entropy from logits if None.
        batch_norm: str. How `BatchNormalization` layers normalise.
        inner_rule: str, dict or InnerRule. How an inner step changes the weights.
        inner_batch_size: int ≥ 1 or None. Support examples per inner step; all if None.

    Raises:
        ValueError: If an option is none of the above, or Keras does not know it either.
    """

    has_inner_steps = True
    built: bool

    def __init__(
        self,
        network: keras.Model,
        keras_options: dict[str, Any],
        *,
        inner_learning_rate: float,
        inner_steps: int,
        test_inner_steps: int | None,
        first_order: bool,
        inner_loss: Any,
        batch_norm: BatchNorm,
        inner_rule: Any,
        inner_batch_size: int | None,
    ) -> None:
        check_model("network", network)
        prepare_network(network)
        check_positive("inner_learning_rate", inner_learning_rate)
        check_integer("inner_steps", inner_steps, 0)
        if test_inner_steps is not None:
            check_integer("test_inner_steps", test_inner_steps, 0)
        if inner_batch_size is not None:
            check_integer("inner_batch_size", inner_batch_size, 1)
        check_batch_norm(batch_norm)
        super().__init__(**{"dtype": network.dtype_policy, **keras_options})
        self.network = network
        self.inner_learning_rate = inner_learning_rate
        self.inner_steps = inner_steps
        self.test_inner_steps = inner_steps if test_inner_steps is None else test_inner_steps
        self.first_order = first_order
        self.inner_loss = keras.losses.get(
            inner_loss
        ) or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.batch_norm = batch_norm
        self.inner_rule = inner_rules.get(inner_rule)
        self.inner_batch_size = inner_batch_size
        self._rule_is_made = False

    # === Building ===

    def build_if_possible(self) -> None:
        """Builds the learner if its networks are built; call it at the end of the constructor."""
        if self.networks_are_built():
            self.build(None)

    def build(self, input_shape: Any) -> None:
        """Builds the networks and the rule; `input_shape` may be None if the networks are built."""
        if input_shape is not None:
            self._remember_example_shape(input_shape["support_x"][2:])
        if not self.networks_are_built():
            # A subclassed network builds its layers when it is called.
            self.call_networks(keras.Input(tuple(input_shape["support_x"][2:])))
        if not self._rule_is_made:
            if self.inner_rule.built:
                raise ValueError(
                    f"This {type(self.inner_rule).__name__} object is another learner's: give each "
                    "learner an inner rule of its own."
                )
            weights = list(itertools.compress(*self.start_weights()))
            self.inner_rule.make(weights, self.inner_learning_rate, self.inner_steps)
            self.inner_rule.built = self._rule_is_made = True
        self._check_steps(max(self.inner_steps, self.test_inner_steps))
        self.built = True

    def networks_are_built(self) -> bool:
        """Returns whether all networks have their weights."""
        return self.network.built

    def call_networks(self, x: Any) -> Any:
        """Calls all networks on symbolic examples, to build them."""
        return self.network(x)

    def _check_steps(self, steps: int) -> None:
        most = self.inner_rule.max_inner_steps
        if most is not None and steps > most:
            raise ValueError(
                f"The inner rule {type(self.inner_rule).__name__} is defined for up to {most} "
                f"inner steps, those of meta-training; got {steps}."
            )

    # === The contract ===

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> State:
        """Takes the inner steps; returns the task's weights. See `MetaLearner.adapt_task`."""
        support = Support(support_x, support_y, support_mask)
        steps = self.inner_steps if training else self.test_inner_steps
        *_, state = self.descend(support, steps, training, self.first_order)
        return self.with_statistics(state, support, training)

    def predict_task(
        self,
        state: State,
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Calls the network with the task's weights. See `MetaLearner.predict_task`."""
        return self.predict_with_weights(state, query_x, query_mask, training)

    def predict_task_by_step(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None,
        inner_steps: int,
    ) -> tf.Tensor:
        """Predicts after each step, in a loop of the graph. See `MetaLearner`."""
        self._check_steps(inner_steps)
        support = Support(support_x, support_y, support_mask)
        return predictions_by_step(self, support, query_x, query_mask, inner_steps)

    # === The inner loop ===

    def descend(
        self, support: Support, steps: int, training: bool, first_order: bool
    ) -> Iterator[State]:
        """Yields the state after 0, 1, …, `steps` inner steps."""
        state, memory = self.start()
        yield state
        for step in range(steps):
            state, memory = self.inner_step(state, memory, support, step, training, first_order)
            yield state

    def start(self) -> tuple[State, Any]:
        """Returns the state before the first step, and the inner rule's memory."""
        weights, adapts = self.start_weights()
        state = {
            "trainable": [tf.convert_to_tensor(w) for w in weights],
            "non_trainable": values_of(self.network)[1],
        }
        return state, self.inner_rule.start(list(itertools.compress(state["trainable"], adapts)))

    def inner_step(
        self,
        state: State,
        memory: Any,
        support: Support,
        step: int | tf.Tensor,
        training: bool,
        first_order: bool,
    ) -> tuple[State, Any]:
        """Takes one inner step, θ' = θ − α ∇L(θ; support): the new state and memory.

        As in Keras, what layers add to the loss counts, and constraints of weights hold after it.
        """
        weights, adapts = self.start_weights()
        fast = list(itertools.compress(state["trainable"], adapts))
        x, y, mask = support_batch(*support, step, self.inner_batch_size)
        by = normalization(self.batch_norm, "inner steps", training)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fast)
            with collecting_losses() as losses:
                predictions, non_trainable = self.forward(state, x, by, mask, training)
            loss = self._support_loss(y, predictions, mask)
            added = sum_of(losses, loss.dtype)
            loss = loss if added is None else loss + added
        gradients = gradients_of(tape, loss, fast)
        if first_order:
            gradients = [tf.stop_gradient(g) for g in gradients]
            loss = tf.stop_gradient(loss)
        fast, memory = self.inner_rule.update(fast, gradients, loss, memory, step)
        fast = constrained(fast, itertools.compress(weights, adapts))
        new = iter(fast)
        trainable = [
            next(new) if adapt else w for w, adapt in zip(state["trainable"], adapts, strict=True)
        ]
        return {"trainable": trainable, "non_trainable": non_trainable}, memory

    def start_weights(self) -> tuple[list[Any], list[bool]]:
        """Returns the values that a task's weights start from, and which of them adapt."""
        fixed = {id(v) for layer in batch_norm_layers(self.network) for v in layer.variables}
        weights = self.network.trainable_variables
        return weights, [id(w) not in fixed for w in weights]

    def forward(
        self,
        state: State,
        x: tf.Tensor,
        normalization: Normalization,
        mask: tf.Tensor | None,
        training: bool,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns predictions with a task's weights, and the new non-trainable values."""
        return call_network(
            self.network, **state, x=x, normalization=normalization, mask=mask, training=training
        )

    def predict_with_weights(
        self, state: State, x: tf.Tensor, mask: tf.Tensor | None, training: bool
    ) -> tf.Tensor:
        """Returns the network's predictions for queries, with a task's weights."""
        by = normalization(self.batch_norm, "queries", training)
        predictions, non_trainable = self.forward(state, x, by, mask, training)
        if training:
            carry_over(self.network, non_trainable, self.batch_norm)
        return predictions

    def with_statistics(self, state: State, support: Support, training: bool) -> State:
        """Puts the support set's statistics into the state, in the mode `"support"`."""
        if self.batch_norm != "support" or not batch_norm_layers(self.network):
            return state
        by = normalization(self.batch_norm, "support", training)
        with collecting_losses():  # They are not those of queries.
            _, non_trainable = self.forward(state, support.x, by, support.mask, training)
        return {**state, "non_trainable": non_trainable}

    def _support_loss(
        self, support_y: tf.Tensor, predictions: tf.Tensor, support_mask: tf.Tensor | None
    ) -> tf.Tensor:
        if support_y.shape.rank not in (predictions.shape.rank - 1, predictions.shape.rank):
            raise ValueError(
                f"support_y {tuple(support_y.shape)} does not fit the network's predictions "
                f"{tuple(predictions.shape)} for one task."
            )
        return mean_loss(
            self.inner_loss, support_y, tf.cast(predictions, self.variable_dtype), support_mask
        )

    # === What others want to know ===

    @property
    def output_kind(self) -> Literal["logits", "scores", "values"]:
        """The kind of outputs that the inner loss takes: logits, scores or values."""
        if isinstance(self.inner_loss, keras.losses.SparseCategoricalCrossentropy):
            return "logits" if self.inner_loss.from_logits else "scores"
        # The name resolves to Keras's function, which also takes probabilities.
        of_classes = self.inner_loss is keras.losses.sparse_categorical_crossentropy
        return "scores" if of_classes else "values"

    def default_loss(self) -> keras.losses.Loss:
        """Returns the published loss, which takes logits or probabilities, like the inner loss."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=self.output_kind != "scores")

    def input_network(self) -> keras.Model | None:
        return self.network

    def prediction_shape(self, example_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the network's output for one example."""
        return output_shape(self.network, example_shape)

    def check_task(self, support_x: np.ndarray, support_y: np.ndarray) -> None:
        if self.output_kind == "values":
            return
        try:
            check_labels(support_y, self.prediction_shape(support_x.shape[1:])[-1])
        except ValueError as error:
            raise ValueError(
                f'{error} For regression, give the learner another inner_loss=, for example "mse".'
            ) from None

    def plain_model(self, state: State) -> keras.Model | None:
        """Makes a copy of the network with the task's weights. See `MetaLearner.plain_model`."""
        if normalises_together(self.batch_norm, self.network):
            return None
        return copy_with_values(self.network, state["trainable"], state["non_trainable"])

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns an empty list: the state holds the values of all variables of the network."""
        return []

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **constructor_arguments(self, InnerLoopLearner)}
