"""Inner update rules: how an inner step changes a task's weights, and what is learned about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from tfmeta.registry import find

Tensors = list[tf.Tensor]
# A number where inner steps are unrolled, a scalar int32 tensor where they are a graph's loop.
Step: TypeAlias = int | tf.Tensor


@keras.saving.register_keras_serializable("tfmeta")
class InnerRule(keras.layers.Layer):
    """Base class of inner update rules: a Keras layer whose variables are meta-parameters.

    A rule supplies `update`, and where it needs them `make` (its meta-parameters) and `start` (its
    memory at a task's first step). The learner meta-learns a rule's trainable variables along with
    the initialisation.

    Example:

    >>> class Signs(InnerRule):
    ...     def update(self, weights, gradients, loss, memory, step):
    ...         rate = self.inner_learning_rate
    ...         pairs = zip(weights, gradients, strict=True)
    ...         return [w - rate * tf.sign(g) for w, g in pairs], memory
    >>> import tfmeta
    >>> learner = tfmeta.MAML(tfmeta.backbones.mlp(), 0.1, inner_loss="mse", inner_rule=Signs())
    >>> learner.adapt([[0.0]], [[1.0]]).predict(tf.zeros([1, 1]), verbose=0).shape
    (1, 1)
    """

    # The most inner steps that the rule is defined for; None for any number.
    max_inner_steps: int | None = None

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        """Called once by the learner, when the shapes are known: creates the meta-parameters.

        Args:
            weights: What has the shapes and dtypes of the values that the rule will change:
                variables, or tensors.
            inner_learning_rate: The learner's (initial) step size.
            inner_steps: The learner's inner steps in meta-training.
        """
        self.inner_learning_rate = inner_learning_rate

    def start(self, weights: Tensors) -> Any:
        """The rule's memory before a task's first step: any nesting of tensors.

        In `tfmeta.Reptile`, whose inner steps are a loop of the graph, `update` must return the
        memory in the same nesting, with the same shapes and dtypes.
        """
        return ()

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        """One inner step. Pure: differentiable by everything that it gets and by its variables.

        Args:
            weights: The values that adapt.
            gradients: Of the support set's loss by these values.
            loss: Scalar, that loss.
            memory: What `start` or the last step returned.
            step: Number of the step, from 0: an integer, or in the loop of `tfmeta.Reptile` a
                scalar int32 tensor, by which Python can neither branch nor index a list.

        Returns:
            The new values, and the memory.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement update.")


@keras.saving.register_keras_serializable("tfmeta")
class SGD(InnerRule):
    """Gradient descent with a fixed step size: θ' = θ − α g. Nothing is learned about it."""

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        # The gradient of a subtraction has a negation, one more pass over all weights.
        factor = -self.inner_learning_rate
        return [w + factor * g for w, g in zip(weights, gradients, strict=True)], memory


@keras.saving.register_keras_serializable("tfmeta")
class Momentum(InnerRule):
    """Gradient descent with momentum, whose step size and momentum are meta-learned scalars.

    v' = μ v + g, θ' = θ − α v', from v = 0. Both start as given and are not constrained.

    Args:
        momentum: Initial μ, usually from 0 to 1.
    """

    def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_momentum = momentum

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        self.learning_rate = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(inner_learning_rate),
            dtype=_dtype(weights),
            name="learning_rate",
        )
        self.momentum = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.initial_momentum),
            dtype=_dtype(weights),
            name="momentum",
        )

    def start(self, weights: Tensors) -> Any:
        return [tf.zeros_like(w) for w in weights]

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        momentum, rate = self.momentum.value, self.learning_rate.value
        memory = [momentum * v + g for v, g in zip(memory, gradients, strict=True)]
        return [w - rate * v for w, v in zip(weights, memory, strict=True)], memory

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.initial_momentum}


@keras.saving.register_keras_serializable("tfmeta")
class PerParameter(InnerRule):
    """A meta-learned step size for every single parameter, as in Meta-SGD: θ' = θ − α ∘ g.

    All start at the learner's `inner_learning_rate`. They are not constrained, and may become
    negative, as in the paper.

    Reference:
        Li, Zhou, Chen, Li (2017), Meta-SGD, https://arxiv.org/abs/1707.09835, equation (2).
    """

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        self.learning_rates = [
            self.add_weight(
                shape=w.shape,
                initializer=keras.initializers.Constant(inner_learning_rate),
                dtype=_dtype(weights),
                name=f"rates_{i}",
            )
            for i, w in enumerate(weights)
        ]

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        triples = zip(weights, self.learning_rates, gradients, strict=True)
        return [w - rate.value * g for w, rate, g in triples], memory


@keras.saving.register_keras_serializable("tfmeta")
class PerLayerPerStep(InnerRule):
    """A meta-learned step size for every weight tensor and inner step, as in MAML++.

    θ'_l = θ_l − α_{l,k} g_l. All start at the learner's `inner_learning_rate`. More steps than in
    meta-training are an error: nothing was learned for them.

    Reference:
        Antoniou, Edwards, Storkey (2019), How to train your MAML,
        https://arxiv.org/abs/1810.09502, section 4, "Learning per-layer per-step learning rates".
    """

    def make(
        self, weights: Sequence[keras.Variable], inner_learning_rate: float, inner_steps: int
    ) -> None:
        self.max_inner_steps = inner_steps
        self.learning_rates = [
            self.add_weight(
                shape=(inner_steps,),
                initializer=keras.initializers.Constant(inner_learning_rate),
                dtype=_dtype(weights),
                name=f"rates_{i}",
            )
            for i, _ in enumerate(weights)
        ]

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        triples = zip(weights, self.learning_rates, gradients, strict=True)
        return [w - rate.value[step] * g for w, rate, g in triples], memory


@keras.saving.register_keras_serializable("tfmeta")
class Adam(InnerRule):
    """Adam with bias correction and fixed settings. Nothing is learned about it.

    Args:
        beta_1: Decay of the first moment. Reptile's code uses 0, the default here.
        beta_2: Decay of the second moment.
        epsilon: Added to the root of the second moment.

    Reference:
        Kingma, Ba (2015), https://arxiv.org/abs/1412.6980, Algorithm 1.
    """

    def __init__(
        self, beta_1: float = 0.0, beta_2: float = 0.999, epsilon: float = 1e-8, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def start(self, weights: Tensors) -> Any:
        zeros = [tf.zeros_like(w) for w in weights]
        return {"first": zeros, "second": zeros}

    def update(
        self, weights: Tensors, gradients: Tensors, loss: tf.Tensor, memory: Any, step: Step
    ) -> tuple[Tensors, Any]:
        def decayed(averages: Tensors, values: Tensors, beta: float) -> Tensors:
            pairs = zip(averages, values, strict=True)
            return [beta * average + (1 - beta) * value for average, value in pairs]

        first = decayed(memory["first"], gradients, self.beta_1)
        second = decayed(memory["second"], [tf.square(g) for g in gradients], self.beta_2)
        # In float64, whatever the weights are: 0.999 is 1 in bfloat16.
        count = tf.cast(step + 1, tf.float64)
        first_scale, second_scale = (1 - beta**count for beta in (self.beta_1, self.beta_2))
        rate = self.inner_learning_rate / first_scale
        weights = [
            w
            - tf.cast(rate, w.dtype)
            * m
            / (tf.sqrt(v / tf.cast(second_scale, v.dtype)) + self.epsilon)
            for w, m, v in zip(weights, first, second, strict=True)
        ]
        return weights, {"first": first, "second": second}

    def get_config(self) -> dict[str, Any]:
        settings = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **settings}


def _dtype(weights: Sequence[keras.Variable]) -> str:
    """The float type of the weights, whatever the global one is."""
    return keras.backend.standardize_dtype(weights[0].dtype)


BY_NAME: dict[str, type[InnerRule]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "per_parameter": PerParameter,
    "per_layer_per_step": PerLayerPerStep,
    "adam": Adam,
}


def get(rule: str | Mapping[str, Any] | InnerRule) -> InnerRule:
    """An inner update rule by its name, by `{name: …, option: …}`, or itself.

    Raises:
        ValueError: If there is no rule of this name, or it has no such option.

    Example:

    >>> get({"name": "momentum", "momentum": 0.5}).initial_momentum
    0.5
    """
    if isinstance(rule, InnerRule):
        return rule
    if not isinstance(rule, str | Mapping):
        raise ValueError(
            f"An inner rule is a name, {{name: …, option: …}} or an InnerRule object; got {rule!r}."
        )
    options = {"name": rule} if isinstance(rule, str) else dict(rule)
    name = options.pop("name", None)
    try:
        return find("inner rule", name, BY_NAME)(**options)
    except TypeError as error:
        raise ValueError(f"inner rule {name!r}: {error}") from error
