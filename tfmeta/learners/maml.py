"""Model-agnostic meta-learning: an initialisation that a few gradient steps adapt to a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.adapted_model import AdaptedModel, copy_model
from tfmeta.learners.functional import batch_norm_layers, call_network, mean_loss
from tfmeta.learners.meta_learner import MetaLearner

BatchNorm = Literal["transductive", "support", "running"]

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
        inner_learning_rate: Step size α of the inner gradient descent, > 0.
        inner_steps: Inner steps in meta-training, ≥ 0. With 0 there is nothing but joint training
            on all tasks.
        test_inner_steps: Inner steps outside of meta-training (`evaluate`, `predict`, `adapt`);
            defaults to `inner_steps`.
        first_order: Whether to ignore second derivatives (first-order MAML).
        inner_loss: Any Keras loss, by name, function or object; averaged over the support set.
            Defaults to sparse categorical cross-entropy from logits. Regression needs its own,
            for example `"mse"`.
        batch_norm: How the network's `BatchNormalization` layers normalise.
            `"transductive"`: the support set and the queries each by their own statistics, in
            training and test, as published. A query's prediction then depends on the other
            queries beside it.
            `"support"`: the queries by the statistics of the support set under the adapted
            weights.
            `"running"`: Keras's own meaning: batch statistics in meta-training, where the moving
            averages are updated (with the mean over the tasks), and moving averages elsewhere.
            Layers with `trainable=False` keep to their moving averages in every mode.
        **kwargs: As in `keras.Model`: `name`, `dtype`. The dtype defaults to the network's.

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

    def __init__(
        self,
        network: keras.Model,
        inner_learning_rate: float = 0.01,
        inner_steps: int = 1,
        test_inner_steps: int | None = None,
        first_order: bool = False,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        if not isinstance(network, keras.Model):
            raise ValueError(f"network must be a keras.Model; got {type(network).__name__}.")
        if not inner_learning_rate > 0:
            raise ValueError(f"inner_learning_rate must be > 0; got {inner_learning_rate}.")
        for name, steps in (("inner_steps", inner_steps), ("test_inner_steps", test_inner_steps)):
            if steps is not None and (steps != int(steps) or steps < 0):
                raise ValueError(f"{name} must be an integer ≥ 0; got {steps}.")
        if batch_norm not in ("transductive", "support", "running"):
            raise ValueError(
                f'batch_norm must be "transductive", "support" or "running"; got {batch_norm!r}.'
            )
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
        self.built = network.built

    def build(self, input_shape: dict[str, Any]) -> None:
        if not self.network.built:
            # A subclassed network builds its layers when it is called.
            self.network(keras.Input(tuple(input_shape["support_x"][2:])))

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
        *_, state = self._descend(support_x, support_y, support_mask, steps, training)
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
        predictions, non_trainable = call_network(
            self.network,
            **state,
            x=query_x,
            normalization="moving" if by_support else self._inner_normalization(training),
            mask=query_mask,
            training=training,
        )
        if training:
            for variable, value in self._carried_over(non_trainable):
                variable.assign(value)
        return predictions

    def adapt_task_by_step(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        inner_steps: int,
    ) -> list[State]:
        """The task's weights after 0, 1, …, `inner_steps` inner steps."""
        return [
            self._with_statistics(state, support_x, support_mask, training=False)
            for state in self._descend(support_x, support_y, support_mask, inner_steps, False)
        ]

    def _descend(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        steps: int,
        training: bool,
    ) -> Iterator[State]:
        """Yields the state after 0, 1, …, `steps` steps of θ' = θ − α ∇L(θ'; support)."""
        fixed = {id(v) for layer in batch_norm_layers(self.network) for v in layer.variables}
        adapts = [id(v) not in fixed for v in self.network.trainable_variables]
        weights = [tf.convert_to_tensor(v.value) for v in self.network.trainable_variables]
        non_trainable = [
            tf.convert_to_tensor(v.value) for v in self.network.non_trainable_variables
        ]
        yield {"trainable": weights, "non_trainable": non_trainable}
        for _ in range(steps):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                predictions, non_trainable = call_network(
                    self.network,
                    weights,
                    non_trainable,
                    support_x,
                    normalization=self._inner_normalization(training),
                    mask=support_mask,
                    training=training,
                )
                loss = self._support_loss(support_y, predictions, support_mask)
            gradients = tape.gradient(
                loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            if self.first_order:
                gradients = [tf.stop_gradient(g) for g in gradients]
            weights = [
                w - self.inner_learning_rate * g if adapt else w
                for w, g, adapt in zip(weights, gradients, adapts, strict=True)
            ]
            yield {"trainable": weights, "non_trainable": non_trainable}

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

    def _inner_normalization(self, training: bool) -> Literal["batch", "update", "moving"]:
        if self.batch_norm != "running":
            return "batch"
        return "update" if training else "moving"

    def _with_statistics(
        self, state: State, support_x: tf.Tensor, support_mask: tf.Tensor | None, training: bool
    ) -> State:
        """In the support mode, puts the support set's statistics into the state."""
        if self.batch_norm != "support" or not batch_norm_layers(self.network):
            return state
        _, non_trainable = call_network(
            self.network,
            **state,
            x=support_x,
            normalization="replace",
            mask=support_mask,
            training=training,
        )
        return {**state, "non_trainable": non_trainable}

    def _carried_over(
        self, non_trainable: list[tf.Tensor]
    ) -> Iterator[tuple[keras.Variable, tf.Tensor]]:
        """What outlives a task in training: all but the support set's statistics."""
        statistics = (
            {
                id(v)
                for layer in batch_norm_layers(self.network)
                for v in layer.non_trainable_variables
            }
            if self.batch_norm == "support"
            else set()
        )
        for variable, value in zip(
            self.network.non_trainable_variables, non_trainable, strict=True
        ):
            if id(variable) not in statistics:
                yield variable, value

    # === One task ===

    def adapt(self, support_x: Any, support_y: Any, class_names: Any = None) -> keras.Model:
        """Learns one task, for good. See `MetaLearner.adapt`.

        With `batch_norm="transductive"` the returned model normalises each batch that it predicts
        by the batch's own statistics: `predict` with a `batch_size` that holds all queries.
        """
        labels = np.asarray(support_y)
        if isinstance(self.inner_loss, keras.losses.SparseCategoricalCrossentropy) and labels.size:
            n_way = self.network(keras.Input(np.shape(support_x)[1:])).shape[-1]
            if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
                raise ValueError(
                    f"support_y must be integer labels [S]; got {labels.dtype} {labels.shape}. "
                    'For regression, give the learner another inner_loss=, for example "mse".'
                )
            if labels.min() < 0 or labels.max() >= n_way:
                raise ValueError(
                    f"Labels must be from 0 to {n_way - 1}, for the network has {n_way} outputs; "
                    f"got {labels.min()} to {labels.max()}."
                )
        return super().adapt(support_x, support_y, class_names)

    def adapted_model(self, state: State) -> keras.Model:
        """A copy of the network with the task's weights, where Keras can copy and normalise so.

        Otherwise an `AdaptedModel`; it needs no copy, because the state holds all variables.
        """
        if self.batch_norm == "transductive" and batch_norm_layers(self.network):
            return AdaptedModel.from_state(self, state)
        try:
            network = copy_model(self.network)
        except (TypeError, NotImplementedError):  # A subclass without a complete get_config.
            return AdaptedModel.from_state(self, state)
        for variables, values in (
            (network.trainable_variables, state["trainable"]),
            (network.non_trainable_variables, state["non_trainable"]),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return network

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
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MAML:
        config = dict(config)
        for name in ("network", "inner_loss"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return cls(**config)
