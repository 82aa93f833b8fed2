"""A Gaussian process whose kernel is a network, meta-learned over past tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.checks import check_in_range, check_integer, check_positive
from tfmeta.tuning.gaussian_process import factor, log_marginal_likelihood, matern52, posterior
from tfmeta.tuning.past_task import PastTask

# What is added to the diagonal of a covariance, besides the noise.
JITTER = 1e-6
# Standard deviation of the logarithm by which `meta_fit` scales the scores of a batch.
LOG_SCALE = 0.5


@keras.saving.register_keras_serializable("tfmeta")
class DeepKernel(keras.Model):
    """A few-shot surrogate: a Gaussian process on features that a network computes.

    The scores of a task are `o + g(x) + noise`, where g is a Gaussian process with Matérn's kernel
    (ν = 5/2) on the network's features. The task's offset o is normally distributed, too, so it has
    a closed form. `meta_fit` learns the network and all variances by the marginal likelihood of
    batches of past tasks. `posterior_of` then predicts a new task from its few scores.

    With `hidden_units=()` it is a plain Gaussian process on the points.

    Args:
        n_inputs: int ≥ 1. The number of coordinates of a point.
        hidden_units: sequence of int. Units of the network's layers, with ReLU. Defaults to
            `(32, 32, 32, 32)`, as published.
        seed: int. Of the initial weights. Defaults to 0.

    Raises:
        ValueError: If an option does not fit.

    Reference:
        Wistuba & Grabocka (2021), "Few-shot Bayesian optimization with deep kernel surrogates",
        ICLR, https://openreview.net/forum?id=bJxgv5C3sYc. `docs/algorithms.md` has the deviations.

    Example:

    >>> generator = np.random.default_rng(0)
    >>> def scores(points, best):
    ...     return 0.9 - (points[:, 0] - best) ** 2
    >>> draws = [generator.uniform(size=(30, 1)) for _ in range(5)]
    >>> past = [PastTask(x, scores(x, best)) for x, best in zip(draws, (.3, .4, .5, .6, .7))]
    >>> model = DeepKernel(1, hidden_units=(16, 16))
    >>> loss = model.meta_fit(past, steps=200)
    >>> predict = model.posterior_of(PastTask(np.array([[0.1], [0.5]]), np.array([0.74, 0.9])))
    >>> mean, std = predict(np.array([[0.9]]))
    >>> mean.shape, bool(std > 0)
    (TensorShape([1]), True)
    """

    def __init__(
        self,
        n_inputs: int,
        hidden_units: Sequence[int] = (32, 32, 32, 32),
        *,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_integer("n_inputs", n_inputs, 1)
        for units in hidden_units:
            check_integer("hidden_units", units, 1)
        super().__init__(**{"dtype": "float64", **kwargs})
        self.n_inputs = n_inputs
        self.hidden_units = tuple(hidden_units)
        self.seed = seed
        self._layers_of_features = [
            keras.layers.Dense(
                units,
                "relu",
                kernel_initializer=keras.initializers.GlorotUniform(seed=1000 * seed + i),
                dtype="float64",
            )
            for i, units in enumerate(hidden_units)
        ]
        self._copy: _Copy | None = None
        self.build((None, n_inputs))

    def build(self, input_shape: Any) -> None:
        shape = (None, self.n_inputs)
        for layer, units in zip(self._layers_of_features, self.hidden_units, strict=True):
            layer.build(shape)
            shape = (None, units)

        def log_of(name: str, value: float) -> keras.Variable:
            return self.add_weight((), keras.initializers.Constant(math.log(value)), name=name)

        self.log_length_scale = log_of("log_length_scale", 1.0)
        self.log_scale = log_of("log_scale", 0.2)
        self.log_noise = log_of("log_noise", 0.03)
        self.log_offset = log_of("log_offset", 1.0)
        # What one unit of a score is, from the past tasks.
        self.unit = self.add_weight((), "ones", name="unit", trainable=False)
        self.built = True

    def call(self, points: tf.Tensor) -> tf.Tensor:
        """Computes the network's features `[N, h]` of points `[N, d]`."""
        features = tf.cast(points, "float64")
        for layer in self._layers_of_features:
            features = layer(features)
        return features

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "n_inputs": self.n_inputs,
            "hidden_units": list(self.hidden_units),
            "seed": self.seed,
        }

    # === Learning ===

    def meta_fit(
        self,
        past: Sequence[PastTask],
        *,
        steps: int = 1500,
        batch_size: int = 16,
        learning_rate: float = 1e-3,
        best_share: float = 0.5,
        seed: int = 0,
    ) -> float:
        """Learns from past tasks, by Adam with a rate that falls to 0 as a cosine.

        Args:
            past: sequence of PastTask. Their scores must have one unit, such as accuracy.
            steps: int ≥ 1. Steps, each on a batch of one task. Defaults to 1500.
            batch_size: int ≥ 2. Points in a batch; at most as many as the smallest task has.
                Defaults to 16.
            learning_rate: float > 0. Adam's, at the start. Defaults to 1e-3.
            best_share: float in [0, 1). How much of a batch is drawn from the best tenth of its
                task, because a search sees more of those. Defaults to 0.5.
            seed: int. Of the batches. Defaults to 0.

        Returns:
            float. The mean loss, minus the log marginal likelihood per point, of the last tenth of
            the steps.

        Raises:
            ValueError: If there is no past task, or one does not fit.
        """
        self._check_all(past)
        check_integer("steps", steps, 1)
        check_integer("batch_size", batch_size, 2)
        check_positive("learning_rate", learning_rate)
        check_in_range("best_share", best_share, 0, 1)
        spreads = [np.ptp(task.scores) for task in past]
        if not max(spreads) > 0:
            raise ValueError(
                "All scores of each past task are the same: there is nothing to learn."
            )
        self.unit.assign(np.median([spread for spread in spreads if spread > 0]))
        size = min(batch_size, *(len(task.scores) for task in past))
        optimizer = keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps), clipnorm=10.0
        )
        optimizer.build(self.trainable_variables)

        @tf.function(reduce_retracing=True)
        def step(points: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
            return self._step(optimizer, points, scores)

        generator = np.random.default_rng(seed)
        orders = [np.argsort(-np.asarray(task.scores)) for task in past]
        losses = []
        for _ in range(steps):
            i = int(generator.integers(len(past)))
            rows = _draw(orders[i], size, best_share, generator)
            scores = past[i].scores[rows] - past[i].scores.mean()
            scores = scores * math.exp(generator.normal(0, LOG_SCALE))
            losses.append(step(past[i].points[rows], scores / float(self.unit)))
        return float(np.mean([float(loss) for loss in losses[-max(1, steps // 10) :]]))

    def fine_tuned(
        self, task: PastTask, *, steps: int = 100, learning_rate: float = 3e-3
    ) -> DeepKernel:
        """Returns a copy with all weights fitted to the few scores of one task, by Adam.

        Args:
            task: PastTask. What was observed.
            steps: int ≥ 1. Steps, each on all points. Defaults to 100.
            learning_rate: float > 0. Adam's. Defaults to 3e-3.

        Returns:
            The copy. The next call changes it: there is only one, which is compiled once.
        """
        self._check_all([task])
        check_integer("steps", steps, 1)
        check_positive("learning_rate", learning_rate)
        if self._copy is None:
            self._copy = _Copy(DeepKernel.from_config(self.get_config()))
        copy = self._copy.model
        copy.set_weights(self.get_weights())
        self._copy.optimizer.learning_rate.assign(learning_rate)
        for variable in self._copy.optimizer.variables:
            if variable is not self._copy.optimizer.learning_rate:
                variable.assign(tf.zeros_like(variable.value))
        scores = (task.scores - np.mean(task.scores)) / float(self.unit)
        self._copy.fit(
            tf.constant(task.points, "float64"), tf.constant(scores, "float64"), tf.constant(steps)
        )
        return copy

    def _step(self, optimizer: Any, points: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Takes a step towards a higher marginal likelihood; returns the loss before."""
        variables = [v.value for v in self.trainable_variables]
        with tf.GradientTape() as tape:
            n = tf.cast(tf.shape(scores)[0], "float64")
            loss = -self.log_likelihood(points, scores) / n
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return loss

    def _check_all(self, tasks: Sequence[PastTask]) -> None:
        if not tasks:
            raise ValueError("There must be at least one past task; got none.")
        for task in tasks:
            task.check()
            if np.shape(task.points)[1] != self.n_inputs:
                raise ValueError(
                    f"Points must have {self.n_inputs} coordinates; a task has "
                    f"{np.shape(task.points)[1]}."
                )

    # === Computing ===

    def log_likelihood(self, points: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Returns the log marginal likelihood of scores in the model's unit.

        Args:
            points: `[N, d]`.
            scores: `[N]`.
        """
        features = self.call(points)
        return log_marginal_likelihood(*factor(self._noisy_covariance(features), scores))

    def posterior_of(self, task: PastTask) -> Callable[[Any], tuple[tf.Tensor, tf.Tensor]]:
        """Returns a function that predicts scores of a task from those that were observed.

        Args:
            task: PastTask. What was observed, in the unit of the past tasks.

        Returns:
            Callable from points `[M, d]` to mean and standard deviation `[M]` of their scores,
            float64. It is differentiable.

        Raises:
            ValueError: If the task does not fit.
        """
        self._check_all([task])
        unit, centre = float(self.unit), float(np.mean(task.scores))
        points = tf.constant(np.asarray(task.points, "float64"))
        scores = tf.constant((np.asarray(task.scores, "float64") - centre) / unit)

        features = self.call(points)
        root, white = factor(self._noisy_covariance(features), scores)

        def predict(new_points: Any) -> tuple[tf.Tensor, tf.Tensor]:
            new_features = self.call(tf.convert_to_tensor(new_points))
            cross = self._covariance(features, new_features)
            prior_variance = tf.exp(2 * self.log_scale) + tf.exp(2 * self.log_offset)
            mean, variance = posterior(root, white, cross, prior_variance)
            return centre + unit * mean, unit * tf.sqrt(variance)

        return predict

    def _covariance(self, features: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
        kernel = matern52(features, others, tf.exp(self.log_length_scale.value))
        return tf.exp(2 * self.log_scale) * kernel + tf.exp(2 * self.log_offset)

    def _noisy_covariance(self, features: tf.Tensor) -> tf.Tensor:
        noise = tf.exp(2 * self.log_noise) + JITTER
        n = tf.shape(features)[0]
        return self._covariance(features, features) + noise * tf.eye(n, dtype="float64")


class _Copy:
    """A model to fine-tune, with its optimizer and the compiled loop of its steps."""

    def __init__(self, model: DeepKernel) -> None:
        self.model = model
        self.optimizer = keras.optimizers.Adam(1e-3, clipnorm=10.0)
        self.optimizer.build(model.trainable_variables)

        @tf.function(
            autograph=False,
            input_signature=[
                tf.TensorSpec([None, model.n_inputs], tf.float64),
                tf.TensorSpec([None], tf.float64),
                tf.TensorSpec([], tf.int32),
            ],
        )
        def fit(points: tf.Tensor, scores: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
            def body(i: tf.Tensor) -> tf.Tensor:
                model._step(self.optimizer, points, scores)
                return i + 1

            return tf.while_loop(lambda i: i < steps, body, [tf.constant(0)])[0]

        self.fit = fit


def _draw(
    order: np.ndarray, size: int, best_share: float, generator: np.random.Generator
) -> np.ndarray:
    """Draws rows of a task, some of them among the best tenth; `order` begins with the best."""
    n_top = max(1, len(order) // 10)
    n_best = min(n_top, int(best_share * size))
    best = generator.choice(order[:n_top], n_best, replace=False)
    others = np.setdiff1d(order, best, assume_unique=True) if len(order) < 1000 else order
    return np.concatenate([best, generator.choice(others, size - n_best, replace=False)])
