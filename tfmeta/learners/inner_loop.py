"""The base class of MAML and all other learners that take inner steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfmeta import inner_rules
from tfmeta.checks import check_integer, check_positive
from tfmeta.learners.contract import constructor_arguments
from tfmeta.learners.gradients import gradients_of
from tfmeta.learners.inner_batches import Support, support_batch
from tfmeta.learners.inner_loss import InnerLoss
from tfmeta.learners.made_rule import MadeRule
from tfmeta.learners.steps import predictions_by_step
from tfmeta.networks import (
    BatchNorm,
    Normalization,
    batch_norm_layers,
    built_by_call,
    call_network,
    carry_over,
    check_batch_norm,
    check_network,
    check_output,
    collecting_losses,
    constrained,
    copy_with_values,
    normalises_together,
    normalization,
    output_shape,
    prepare_network,
    shape_of,
    sum_of,
    values_of,
)

# A task's weights: values in the order of the network's (non-)trainable variables.
State = dict[str, Any]


class InnerLoopLearner(InnerLoss):
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
    n_inputs = 1  # of the network
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
        check_network("network", network, self.n_inputs)
        prepare_network(network)
        check_positive("inner_learning_rate", inner_learning_rate)
        check_integer("inner_steps", inner_steps, 0)
        if test_inner_steps is not None:
            check_integer("test_inner_steps", test_inner_steps, 0)
        if inner_batch_size is not None:
            check_integer("inner_batch_size", inner_batch_size, 1)
        check_batch_norm(batch_norm)
        super().__init__(inner_loss, **{"dtype": network.dtype_policy, **keras_options})
        if self.variable_dtype == "float16":
            raise ValueError(
                "Inner steps lose small gradients and small changes of weights in float16: take "
                'the dtype policy "mixed_bfloat16" or "mixed_float16", with weights in float32.'
            )
        self.network = network
        self.inner_learning_rate = inner_learning_rate
        self.inner_steps = inner_steps
        self.test_inner_steps = inner_steps if test_inner_steps is None else test_inner_steps
        self.first_order = first_order
        self.batch_norm = batch_norm
        self.inner_rule = inner_rules.get(inner_rule)
        self.inner_batch_size = inner_batch_size
        self._rule = MadeRule(self.inner_rule)

    # === Building ===

    def build_if_possible(self) -> None:
        """Builds the learner if its networks are built; call it at the end of the constructor."""
        if self.networks_are_built():
            self.build(None)

    def build(self, input_shape: Any) -> None:
        """Builds the networks and the rule; `input_shape` may be None if the networks are built."""
        if input_shape is not None:
            self._remember_example_shape(input_shape["support_x"][2:])
        shape = getattr(self.network, "output_shape", None)
        if not self.networks_are_built():
            # A subclassed network builds its layers when it is called.
            name, example_shape = type(self).__name__, tuple(input_shape["support_x"][2:])
            shape = shape_of(built_by_call(name, self.call_networks, example_shape))
            check_output(name, self.network, shape)
        if shape is not None:
            self.check_outputs(tuple(shape[1:]), self.network.name)
        self.build_meta_parameters()
        self._rule.make(self.adapting_weights(), self.inner_learning_rate, self.inner_steps)
        self._rule.check_steps(max(self.inner_steps, self.test_inner_steps))
        self.built = True

    def build_meta_parameters(self) -> None:
        """Makes what is meta-learned beside the network and the rule: nothing, unless overridden.

        Further calls must have no effect.
        """

    def networks_are_built(self) -> bool:
        """Returns whether all networks have their weights."""
        return self.network.built

    def call_networks(self, x: Any) -> Any:
        """Calls all networks on symbolic examples, to build them."""
        return self.network(x)

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
        n_way: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Predicts after each step, in a loop of the graph. See `MetaLearner`."""
        self._rule.check_steps(inner_steps)
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
        self.adapting_weights()
        weights, adapts = self.start_weights()
        state = {
            "trainable": [tf.convert_to_tensor(w) for w in weights],
            "non_trainable": values_of(self.network)[1],
        }
        return state, self.inner_rule.start(list(itertools.compress(state["trainable"], adapts)))

    def adapting_weights(self) -> list[Any]:
        """Returns the weights that adapt, after a check that the inner rule can change them.

        Raises:
            ValueError: If there are none, or layers were frozen or thawed since the rule was made.
        """
        weights, adapts = self.start_weights()
        adapting = list(itertools.compress(weights, adapts))
        if max(self.inner_steps, self.test_inner_steps):
            self._rule.check_weights(adapting, self.network)
        return adapting

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
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fast)
            loss, scale, non_trainable = self.step_loss(state, support, step, training)
            scaled_loss = loss if scale is None else loss * scale
        gradients = gradients_of(tape, scaled_loss, fast)
        if scale is not None:
            gradients = [g / tf.cast(scale, g.dtype) for g in gradients]
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

    def step_loss(
        self, state: State, support: Support, step: int | tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None, list[tf.Tensor]]:
        """Returns the loss of an inner step, by what to scale it, and new non-trainable values."""
        x, y, mask = support_batch(*support, step, self.inner_batch_size)
        by = normalization(self.batch_norm, "inner steps", training)
        with collecting_losses() as losses:
            predictions, non_trainable = self.forward(state, x, by, mask, training)
        loss = self.support_loss(y, predictions, mask)
        added = sum_of(losses, loss.dtype)
        loss = loss if added is None else loss + added
        return loss, self.loss_scale(self.network, y, predictions, mask), non_trainable

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

    # === What others want to know ===

    def first_not_finite(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tuple[int, str] | None:
        support = Support(support_x, support_y, support_mask)
        names = [getattr(w, "path", f"weight {i}") for i, w in enumerate(self.start_weights()[0])]
        steps = self.inner_steps if training else self.test_inner_steps
        for step, state in enumerate(self.descend(support, steps, training, True)):
            for name, weight in zip(names, state["trainable"], strict=True):
                if not bool(tf.reduce_all(tf.math.is_finite(weight))):
                    return step, name
        return None

    def input_network(self) -> keras.Model | None:
        return self.network

    def prediction_shape(self, example_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the network's output for one example."""
        return output_shape(self.network, example_shape)

    def plain_model(self, state: State) -> keras.Model | None:
        """Makes a copy of the network with the task's weights. See `MetaLearner.plain_model`."""
        if normalises_together(self.batch_norm, self.network):
            return None
        return copy_with_values(self.network, state["trainable"], state["non_trainable"])

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns an empty list: the state holds the values of all variables of the network."""
        return []

    def get_config(self) -> dict[str, Any]:
        if self.built:
            # A file could not be loaded: its network would not have the rule's weights.
            self.adapting_weights()
        return {**super().get_config(), **constructor_arguments(self, InnerLoopLearner)}
