"""The base class of learners with a Gaussian distribution over the weights of a task."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.learners.inner_batches import Support
from tfmeta.learners.inner_loop import InnerLoopLearner, State
from tfmeta.learners.sampled_outputs import averaged
from tfmeta.learners.task_inputs import checked_inputs
from tfmeta.networks import (
    Normalization,
    batch_norm_layers,
    carry_over,
    collecting_losses,
    constrained,
    normalization,
)
from tfmeta.task_mapping import map_tasks

# Outside of training, draws are those of a step's number; this is the posterior's, after all steps.
OF_POSTERIOR = -1


class _MadeFor:
    """The weights of a network for which there is a log σ."""

    def __init__(self, weights: Sequence[Any]) -> None:
        self.weights = list(weights)


class GaussianWeights(InnerLoopLearner):
    """Base class: inner steps change the means and log σ of independent Gaussian weights.

    A task's `"trainable"` values are those of the network's weights, which are means, then the log
    σ of those that adapt. Several networks are drawn from them; outside of meta-training the random
    numbers are fixed by `seed`, in training each task and step has others, as dropout has.

    A subclass supplies `step_loss`, and in its constructor the attributes.

    Attributes:
        samples: int. Networks drawn in each step, and in meta-training for predictions.
        test_samples: int. Networks drawn for predictions elsewhere.
        initial_log_sigma: (low, high), floats. Range of the prior's log σ at the start.
        noise_scale: float. Standard deviation of a target around the network's output.
        learn_noise_scale: bool. Whether it is meta-learned, from this start.
        seed: int from 0 to 2³¹ − 1. Seed of all draws.
        seed_generator: keras.random.SeedGenerator. Seeds of the draws in meta-training.
        log_sigmas: list of keras.Variable. The prior's log σ, one for each weight that adapts.
    """

    samples: int
    test_samples: int
    initial_log_sigma: tuple[float, float]
    noise_scale: float
    learn_noise_scale: bool
    seed: int
    seed_generator: keras.random.SeedGenerator
    log_sigmas: list[keras.Variable]

    # === Prior and posterior ===

    def build_meta_parameters(self) -> None:
        if hasattr(self, "_made_for"):
            return
        weights = list(itertools.compress(*super().start_weights()))
        start = keras.initializers.RandomUniform(*self.initial_log_sigma)
        self.log_sigmas = [
            self.add_weight(shape=w.shape, initializer=start, name=f"log_sigma_{i}")
            for i, w in enumerate(weights)
        ]
        if self.learn_noise_scale:
            start = keras.initializers.Constant(math.log(self.noise_scale))
            self.log_noise_scale = self.add_weight(
                shape=(), initializer=start, name="log_noise_scale"
            )
        # Keep them inside an object, or Keras would also track them for this learner.
        self._made_for = _MadeFor(weights)

    def start_weights(self) -> tuple[list[Any], list[bool]]:
        """Returns the prior θ: the network's weights, which are means, then each log σ."""
        weights, adapts = super().start_weights()
        drawn = list(itertools.compress(weights, adapts))
        if [id(w) for w in drawn] != [id(w) for w in self._made_for.weights] and drawn:
            raise ValueError(
                f"Layers of {self.network.name!r} were frozen, thawed or replaced (trainable=) "
                "after this learner was made, which has a standard deviation for each weight: undo "
                "that, or make a new learner of the network as it is now."
            )
        log_sigmas = list(self.log_sigmas) if drawn else []
        return [*weights, *log_sigmas], [*adapts, *(True for _ in log_sigmas)]

    def posterior(self, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Returns the means and log σ of the weights that adapt, of values like a state's."""
        _, adapts = self.start_weights()
        n_weights = len(self.network.trainable_variables)
        return list(itertools.compress(values[:n_weights], adapts)), list(values[n_weights:])

    def log_noise(self) -> tf.Tensor:
        """Returns the logarithm of a target's standard deviation around the network's output."""
        if self.learn_noise_scale:
            return tf.convert_to_tensor(self.log_noise_scale.value)
        return tf.constant(math.log(self.noise_scale), self.variable_dtype)

    # === Samples ===

    def draw(self, seed: tf.Tensor, n_samples: int) -> list[list[tf.Tensor]]:
        """Draws standard normal numbers: for each sample, one tensor for each weight that adapts.

        Args:
            seed: tf.Tensor `[2]`, integers.
            n_samples: int. The number of samples.
        """
        shapes = [tuple(v.shape) for v in self.log_sigmas]
        sizes = [math.prod(shape) for shape in shapes]
        # Philox gives the same numbers on all devices. One draw, for hundreds are slow to trace.
        flat = tf.random.stateless_normal(
            [n_samples, sum(sizes)], seed, dtype=self.variable_dtype, alg="philox"
        )
        parts = [
            tf.unstack(tf.reshape(part, [n_samples, *shape]))
            for part, shape in zip(tf.split(flat, sizes, axis=1), shapes, strict=True)
        ]
        return [list(sample) for sample in zip(*parts, strict=True)]

    def outputs(
        self,
        state: State,
        seed: tf.Tensor,
        x: tf.Tensor,
        mask: tf.Tensor | None,
        by: Normalization,
        training: bool,
        n_samples: int | None = None,
    ) -> tuple[list[tf.Tensor], list[list[tf.Tensor]]]:
        """Calls networks drawn from a posterior.

        Args:
            state: dict. A task's state.
            seed: tf.Tensor `[2]`. The seed of the draws.
            x: tf.Tensor `[N, *x]`.
            mask: tf.Tensor `[N]` or None. 0 for padding.
            by: str. How batch norm normalises.
            training: bool. Whether this is meta-training.
            n_samples: int or None. How many networks. Defaults to None, as many as predict.

        Returns:
            The outputs `[N, …]` of each network, and its new non-trainable values.
        """
        means, log_sigmas = self.posterior(state["trainable"])
        weights, adapts = super().start_weights()
        variables = list(itertools.compress(weights, adapts))
        n_samples = n_samples or (self.samples if training else self.test_samples)
        statistics = state.get("statistics")
        outputs, values, non_trainable = [], [], state["non_trainable"]
        for i, noise in enumerate(self.draw(seed, n_samples)):
            drawn = [m + tf.exp(s) * e for m, s, e in zip(means, log_sigmas, noise, strict=True)]
            new = iter(constrained(drawn, variables))
            fixed = state["trainable"][: len(adapts)]
            trainable = [next(new) if a else w for w, a in zip(fixed, adapts, strict=True)]
            if statistics:
                non_trainable = statistics[i]
            sample = {"trainable": trainable, "non_trainable": non_trainable}
            output, non_trainable = self.forward(sample, x, by, mask, training)
            outputs.append(output)
            values.append(non_trainable)
        return outputs, values

    def _seed(self, step: int | tf.Tensor, training: bool) -> tf.Tensor:
        """Returns the seed of a step's draws: another one at each call in training."""
        if training:
            return tf.cast(self.seed_generator.next(), tf.int64)
        return tf.stack([tf.constant(self.seed, tf.int64), tf.cast(step, tf.int64)])

    def with_statistics(self, state: State, support: Support, training: bool) -> State:
        """Puts into the state the seed of the networks that predict, and their statistics."""
        seed = self._seed(OF_POSTERIOR, training)
        state = {**state, "seed": seed}
        if self.batch_norm != "support" or not batch_norm_layers(self.network):
            return state
        by = normalization(self.batch_norm, "support", training)
        with collecting_losses():  # They are not those of queries.
            _, values = self.outputs(state, seed, support.x, support.mask, by, training)
        return {**state, "statistics": values}

    def query_outputs(
        self, state: State, x: tf.Tensor, mask: tf.Tensor | None, training: bool
    ) -> list[tf.Tensor]:
        """Returns each drawn network's outputs for queries."""
        by = normalization(self.batch_norm, "queries", training)
        outputs, values = self.outputs(state, state["seed"], x, mask, by, training)
        if training:
            carry_over(self.network, values[-1], self.batch_norm)
        return [tf.cast(output, self.variable_dtype) for output in outputs]

    def predict_with_weights(
        self, state: State, x: tf.Tensor, mask: tf.Tensor | None, training: bool
    ) -> tf.Tensor:
        """Averages the drawn networks' predictions for queries."""
        return averaged(self.query_outputs(state, x, mask, training), self.output_kind)

    def plain_model(self, state: State) -> None:
        """Returns None: several drawn networks are no plain Keras model."""

    def predict_distribution(self, inputs: Mapping[str, Any]) -> tuple[tf.Tensor, tf.Tensor]:
        """Predicts the mean and variance of the queries' targets, in regression.

        They are those of the mixture of the drawn networks, each with Gaussian noise.

        Args:
            inputs: dict. The inputs of a meta-batch; see `MetaLearner`.

        Returns:
            The means and the variances, each `[T, Q, *y]`.

        Raises:
            ValueError: If this learner classifies: its predictions are the distribution.
        """
        if self.output_kind != "values":
            raise ValueError(
                "predict_distribution is for regression; of classes, the softmax of the "
                "predictions is the distribution."
            )
        inputs = checked_inputs(inputs)
        if not self.built:
            self(inputs)

        def predict(episode: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            state = self.adapt_task(
                episode["support_x"], episode["support_y"], episode.get("support_mask")
            )
            queries = episode["query_x"], episode.get("query_mask")
            mean, variance = tf.nn.moments(
                tf.stack(self.query_outputs(state, *queries, False)), [0]
            )
            return mean, variance + tf.exp(2 * self.log_noise())

        dtype = tf.as_dtype(self.variable_dtype)
        return map_tasks(predict, inputs, (dtype, dtype), self.mapping()._replace(compiled=False))
