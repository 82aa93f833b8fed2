"""Model-agnostic meta-learning: an initialisation that a few gradient steps adapt to a task."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfmeta import inner_rules
from tfmeta.learners.adapted_model import AdaptedModel, NotCopyableError, copy_with_values
from tfmeta.learners.functional import (
    BatchNorm,
    Normalization,
    batch_norm_layers,
    call_network,
    carry_over,
    check_batch_norm,
    check_integer,
    check_model,
    mean_loss,
    normalises_together,
    outputs_shape,
    support_batch,
    values_of,
)
from tfmeta.learners.meta_learner import MetaLearner, check_labels

# A task's weights: values in the order of the network's (non-)trainable variables.
State = dict[str, list[tf.Tensor]]


@keras.saving.register_keras_serializable("tfmeta")
class MAML(MetaLearner):
    """Meta-learns the initialisation of a network, so that gradient descent adapts it to a task.

    Deviations from the paper and its code:

    - The inner loss is the mean over the support set, as everywhere in Keras. The paper's code
      divides the summed loss by the shots per class alone, so that its inner learning rates
      correspond to n_way times larger ones here (see the recipes for rates that were tuned).
    - As in the paper's code, batch norm's shift and scale are meta-learned but not adapted, and
      gradients are not clipped in the inner loop.

    Args:
        network: The base network, any Keras 3 model from `[N, *x]` to `[N, n_way]` logits or
            `[N, *y]`.
        inner_learning_rate: Step size α of the inner gradient descent, > 0. Where the inner rule
            learns its step sizes, what they start from.
        inner_steps: Inner steps in meta-training, ≥ 0. With 0 there is nothing but joint training
            on all tasks.
        test_inner_steps: Inner steps outside of meta-training (`evaluate`, `predict`, `adapt`);
            defaults to `inner_steps`.
        first_order: Whether to ignore second derivatives (first-order MAML).
        inner_loss: Any Keras loss, by name, function or object; averaged over the support set.
            Defaults to sparse categorical cross-entropy from logits. By its name, as in Keras, it
            is that of probabilities, for a network that ends in a softmax. Regression needs
            another, for example `"mse"`.
        batch_norm: How the network's `BatchNormalization` layers normalise.
            `"transductive"`: the support set and the queries each by their own statistics, in
            training and test, as published. A query's prediction then depends on the other
            queries beside it, and the file of an adapted model needs `import tfmeta` to load.
            `"support"`: the queries by the statistics of the support set under the adapted
            weights.
            `"running"`: Keras's own meaning: batch statistics in meta-training, where the moving
            averages are updated (with the mean over the tasks), and moving averages elsewhere.
            Layers with `trainable=False` keep to their moving averages in every mode.
        inner_rule: How an inner step changes the weights: a name or an object of
            `tfmeta.inner_rules`, or an `InnerRule` of your own. Its trainable variables are
            meta-learned, too.
        inner_batch_size: Support examples per inner step, in a fixed pseudo-random order; None for
            all of them in each step.
        **kwargs: As in `keras.Model`: `name`, `dtype`. The dtype defaults to the network's.

    Raises:
        ValueError: If an option is none of the above, the network is no Keras model, the inner
            rule belongs to another learner, or is not defined for so many steps.

    Reference:
        Finn, Abbeel, Levine (2017), Model-Agnostic Meta-Learning for Fast Adaptation of Deep
        Networks, https://arxiv.org/abs/1703.03400. Inner step: θ' = θ − α ∇_θ L(θ; support);
        meta-objective: min_θ Σ_tasks L(θ'; query) (Algorithm 2).

    Example:

    >>> import tfmeta
    >>> learner = tfmeta.MAML(tfmeta.backbones.mlp(), inner_learning_rate=0.01, inner_loss="mse")
    >>> learner.compile(optimizer="adam", loss="mse")
    >>> tasks = tfmeta.data.load("sinusoid").episodes(n_shot=5, meta_batch_size=4, seed=0)
    >>> history = learner.fit(tasks, steps_per_epoch=2, shuffle=False, verbose=0)
    >>> adapted = learner.adapt(support_x=[[0.0], [1.0]], support_y=[[0.0], [0.8]])
    >>> adapted.predict(np.array([[0.5]]), verbose=0).shape
    (1, 1)
    """

    built: bool

    def __init__(
        self,
        network: keras.Model,
        inner_learning_rate: float = 0.01,
        inner_steps: int = 1,
        test_inner_steps: int | None = None,
        first_order: bool = False,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_rule: Any = "sgd",
        inner_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_model("network", network)
        if not inner_learning_rate > 0:
            raise ValueError(f"inner_learning_rate must be > 0; got {inner_learning_rate}.")
        for name, steps in (("inner_steps", inner_steps), ("test_inner_steps", test_inner_steps)):
            if steps is not None:
                check_integer(name, steps, 0)
        if inner_batch_size is not None:
            check_integer("inner_batch_size", inner_batch_size, 1)
        check_batch_norm(batch_norm)
        kwargs.setdefault("dtype", network.dtype_policy)
        super().__init__(**kwargs)
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
        self._build_if_possible()

    def _build_if_possible(self) -> None:
        if self.network.built:
            self.build(None)

    def build(self, input_shape: Any) -> None:
        """Builds what is not built; `input_shape` is that of the inputs, or None if nothing is."""
        if input_shape is not None:
            self._see(input_shape["support_x"][2:])
        self._build_network(input_shape)
        if not self.built:
            if self.inner_rule.built:
                raise ValueError(
                    f"This {type(self.inner_rule).__name__} object is another learner's: give each "
                    "learner an inner rule of its own."
                )
            weights = [w for w, adapts in zip(*self._weights(), strict=True) if adapts]
            self.inner_rule.make(weights, self.inner_learning_rate, self.inner_steps)
            self._check_steps(max(self.inner_steps, self.test_inner_steps))
            self.inner_rule.built = True
        self.built = True

    def _build_network(self, input_shape: Any) -> None:
        if not self.network.built:
            # A subclassed network builds its layers when it is called.
            self.network(keras.Input(tuple(input_shape["support_x"][2:])))

    def _check_steps(self, steps: int) -> None:
        most = self.inner_rule.max_inner_steps
        if most is not None and steps > most:
            raise ValueError(
                f"The inner rule {type(self.inner_rule).__name__} is defined for up to {most} "
                f"inner steps, those of meta-training; got {steps}."
            )

    @property
    def output_kind(self) -> Literal["logits", "scores", "values"]:
        """What the inner loss compares with labels, logits or scores of classes; else values."""
        if isinstance(self.inner_loss, keras.losses.SparseCategoricalCrossentropy):
            return "logits" if self.inner_loss.from_logits else "scores"
        # Keras's function, which the name stands for, takes probabilities, too.
        of_classes = self.inner_loss is keras.losses.sparse_categorical_crossentropy
        return "scores" if of_classes else "values"

    def default_loss(self) -> keras.losses.Loss:
        """The loss by which the method was published, for classification.

        From logits, or from probabilities if the inner loss says that the network returns these.
        """
        return keras.losses.SparseCategoricalCrossentropy(from_logits=self.output_kind != "scores")

    # === The algorithm ===

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> State:
        """Takes the inner steps: the task's weights. See `MetaLearner.adapt_task`."""
        steps = self.inner_steps if training else self.test_inner_steps
        support = support_x, support_y, support_mask
        *_, state = self._descend(*support, steps, training, self.first_order)
        return self._with_statistics(state, support_x, support_mask, training)

    def predict_task(
        self,
        state: State,
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Calls the network with the task's weights. See `MetaLearner.predict_task`."""
        by_support = self.batch_norm == "support"
        normalization = "moving" if by_support else self._inner_normalization(training)
        predictions, non_trainable = self._forward(
            state, query_x, normalization, query_mask, training
        )
        if training:
            carry_over(self.network, non_trainable, self.batch_norm)
        return predictions

    def adapt_task_by_step(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        inner_steps: int,
    ) -> list[State]:
        """The task's weights after 0, 1, …, `inner_steps` inner steps."""
        self._check_steps(inner_steps)
        support = support_x, support_y, support_mask
        return [
            self._with_statistics(state, support_x, support_mask, training=False)
            for state in self._descend(*support, inner_steps, False, self.first_order)
        ]

    def _descend(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        steps: int,
        training: bool,
        first_order: bool,
    ) -> Iterator[State]:
        """Yields the state after 0, 1, …, `steps` steps."""
        state, memory = self._start()
        yield state
        for step in range(steps):
            state, memory = self._step(
                state, memory, support_x, support_y, support_mask, step, training, first_order
            )
            yield state

    def _start(self) -> tuple[State, Any]:
        """The state before the first step, and the inner rule's memory."""
        weights, adapts = self._weights()
        state = {
            "trainable": [tf.convert_to_tensor(w) for w in weights],
            "non_trainable": values_of(self.network)[1],
        }
        return state, self.inner_rule.start(list(itertools.compress(state["trainable"], adapts)))

    def _step(
        self,
        state: State,
        memory: Any,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        step: int | tf.Tensor,
        training: bool,
        first_order: bool,
    ) -> tuple[State, Any]:
        """One inner step, θ' = θ − α ∇L(θ; support): the new state and memory."""
        _, adapts = self._weights()
        fast = list(itertools.compress(state["trainable"], adapts))
        x, y, mask = support_batch(support_x, support_y, support_mask, step, self.inner_batch_size)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fast)
            predictions, non_trainable = self._forward(
                state, x, self._inner_normalization(training), mask, training
            )
            loss = self._support_loss(y, predictions, mask)
        gradients = tape.gradient(loss, fast, unconnected_gradients="zero")
        if first_order:
            gradients = [tf.stop_gradient(g) for g in gradients]
            loss = tf.stop_gradient(loss)
        fast, memory = self.inner_rule.update(fast, gradients, loss, memory, step)
        new = iter(fast)
        trainable = [
            next(new) if adapt else w for w, adapt in zip(state["trainable"], adapts, strict=True)
        ]
        return {"trainable": trainable, "non_trainable": non_trainable}, memory

    # What relatives of MAML do otherwise.

    def _weights(self) -> tuple[list[Any], list[bool]]:
        """Variables or tensors that a task's weights start from, and which of them adapt."""
        fixed = {id(v) for layer in batch_norm_layers(self.network) for v in layer.variables}
        weights = self.network.trainable_variables
        return weights, [id(w) not in fixed for w in weights]

    def _forward(
        self,
        state: State,
        x: tf.Tensor,
        normalization: Normalization,
        mask: tf.Tensor | None,
        training: bool,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Predictions with a task's weights, and the new non-trainable values."""
        return call_network(
            self.network, **state, x=x, normalization=normalization, mask=mask, training=training
        )

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

    # === Batch norm ===

    def _inner_normalization(self, training: bool) -> Normalization:
        if self.batch_norm != "running":
            return "batch"
        return "update" if training else "moving"

    def _with_statistics(
        self, state: State, support_x: tf.Tensor, support_mask: tf.Tensor | None, training: bool
    ) -> State:
        """In the support mode, puts the support set's statistics into the state."""
        if self.batch_norm != "support" or not batch_norm_layers(self.network):
            return state
        _, non_trainable = self._forward(state, support_x, "replace", support_mask, training)
        return {**state, "non_trainable": non_trainable}

    # === One task ===

    def adapt(self, support_x: Any, support_y: Any, class_names: Any = None) -> keras.Model:
        """Learns one task, for good. See `MetaLearner.adapt`.

        With `batch_norm="transductive"` the returned model normalises each batch that it predicts
        by the batch's own statistics: `predict` with a `batch_size` that holds all queries.
        """
        labels = np.asarray(support_y)
        if self.output_kind != "values" and labels.size:
            try:
                check_labels(labels, self.prediction_shape(np.shape(support_x)[1:])[-1])
            except ValueError as error:
                raise ValueError(
                    f"{error} For regression, give the learner another inner_loss=, for example "
                    '"mse".'
                ) from None
        return super().adapt(support_x, support_y, class_names)

    def prediction_shape(self, example_shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the network's output for one example."""
        return outputs_shape(self.network, example_shape)

    def adapted_model(self, state: State) -> keras.Model:
        """A copy of the network with the task's weights, where Keras can copy and normalise so.

        Otherwise an `AdaptedModel`.
        """
        if normalises_together(self.batch_norm, self.network):
            return AdaptedModel.from_state(self, state)
        try:
            return copy_with_values(self.network, state["trainable"], state["non_trainable"])
        except NotCopyableError:
            return AdaptedModel.from_state(self, state)

    def variables_of_predict(self) -> list[keras.Variable]:
        """None: the state holds the values of all of the network's."""
        return []

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "inner_learning_rate": self.inner_learning_rate,
            "inner_steps": self.inner_steps,
            "test_inner_steps": self.test_inner_steps,
            "first_order": self.first_order,
            "inner_loss": keras.saving.serialize_keras_object(self.inner_loss),
            "batch_norm": self.batch_norm,
            "inner_batch_size": self.inner_batch_size,
            "inner_rule": keras.saving.serialize_keras_object(self.inner_rule),
        }
