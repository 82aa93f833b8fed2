"""LEO: latent embedding optimization, gradient descent on codes that a task's weights come from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfmeta.checks import check_in_range, check_integer, check_positive
from tfmeta.learners.comparisons import Comparison, unit, without_missing
from tfmeta.learners.feature_head import FeatureHead, Head, State, class_means
from tfmeta.learners.gradients import gradients_of
from tfmeta.learners.latent_codes import (
    NormalDraw,
    draw,
    exists,
    matrix_penalty,
    mean_over_examples,
    relations,
    summed_loss,
)
from tfmeta.learners.metric_learner import flat
from tfmeta.networks import BatchNorm, add_losses


@keras.saving.register_keras_serializable("tfmeta")
class LEO(FeatureHead):
    """Decodes a linear classifier of features from latent codes, and descends on the codes.

    From the support set's features, a linear map and a relation network over all pairs of examples
    give a normal distribution of codes for each class. A code is drawn for each example, and a
    linear decoder turns it into a normal distribution of the example's weights; a class's weights
    are the mean over its examples. `inner_steps` gradient steps change the codes, and then
    `finetuning_steps` the weights. In meta-training, codes and weights are drawn, anew in each
    step and for each task; elsewhere they are the means of their distributions.

    As in the authors' code, features are divided by their length, and an inner step descends on
    the sum of the support examples' losses, not on their mean.

    Deviations from the paper and its code:

    - The encoder may be trained, too. The authors' features come from files.
    - The code clips gradients by value, and then each weight's by norm, to 0.1. A Keras optimizer
      does one of them: take `clipnorm=0.1`, after which no value exceeds 0.1 either.
    - If the loss or its gradient is NaN, which large σ can cause, the code's step only shrinks
      weights; here training ends with an error. A bound, `largest_deviation`, prevents it.
    - The density of a draw is computed from its noise, which loses no digits if σ is small.

    Args:
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features of any shape.
        n_latent: int ≥ 1. Numbers in a code. Defaults to 64.
        inner_learning_rate: float > 0. Step size of the inner steps on codes, at the start of
            training: each number of a code has its own, which is learned. Defaults to 1.
        inner_steps: int ≥ 0. How many inner steps change the codes. Defaults to 5.
        finetuning_learning_rate: float > 0. Step size of the steps on weights, at the start of
            training: each feature has its own, which is learned. Defaults to 0.001.
        finetuning_steps: int ≥ 0. How many steps change the weights. Defaults to 5.
        sample: bool. Whether codes and weights are drawn in meta-training. If not, `kl_weight` has
            no effect. Defaults to True.
        largest_deviation: float > 0 or None. A bound of σ, without which training may diverge: the
            gradient of a draw grows as exp(s). Defaults to None, no bound, as published.
        dropout_rate: float from 0 to below 1. Which share of the features is dropped in
            meta-training, anew each time that they are used. Defaults to 0.5.
        kl_weight: float ≥ 0. β, the weight of the codes' divergence from a standard normal
            distribution: an estimate from one draw, its mean over all numbers. Defaults to 0.001.
        encoder_penalty_weight: float ≥ 0. γ, the weight of the mean squared difference between the
            codes before and after the inner steps; no gradient passes through the latter. Defaults
            to 1e-9.
        l2_weight: float ≥ 0. λ₁, the weight of half the sum of squares of all weights but the
            step sizes and those of `encoder`. Defaults to 1e-8.
        orthogonality_weight: float ≥ 0. λ₂, the weight of the mean squared difference between the
            cosines of the decoder's rows and the identity. Defaults to 0.001.
        normalize: bool. Whether features are divided by their length. Defaults to True.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`. A pretrained encoder wants `"running"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

    All defaults are those of the authors' code.

    Reference:
        Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero, Hadsell (2019), Meta-Learning with Latent
        Embedding Optimization, https://arxiv.org/abs/1807.05960. Equations (1) to (6) and
        Algorithm 1: with z_n ~ N(μ_n, σ_n²) from the encoder and w_n ~ N(μ_w(z_n), σ_w(z_n)²) from
        the decoder, z' = z − α ∇_z L(support), and then w' = w − β' ∇_w L(support); the outer loss
        is L(queries) + β KL + γ ‖stop_gradient(z') − z‖² + R. The authors' code, from which
        σ = max(exp(s) − (1 − o), 1e-10) is, with the offset o = 0 for codes and that of Glorot's
        initialisation, √(2 / (features + classes)), for weights, is
        https://github.com/google-deepmind/leo.

    Example:

    >>> import numpy as np, tfmeta
    >>> identity = keras.Sequential([keras.Input((16,)), keras.layers.Identity()])
    >>> learner = LEO(identity, n_latent=8)
    >>> learner.compile(keras.optimizers.Adam(1e-3, clipnorm=0.1), learner.default_loss())
    >>> x, y = np.random.rand(60, 16).astype("float32"), np.arange(60) % 3
    >>> episodes = tfmeta.data.load((x, y)).episodes(n_way=3, n_shot=1, n_query=5)
    >>> history = learner.fit(episodes, steps_per_epoch=1, shuffle=False, verbose=0)
    >>> learner.adapt(x[:6], y[:6]).predict(x[:7], verbose=0).shape
    (7, 3)
    """

    has_inner_steps = shares_weights = True  # Steps change codes and decoded weights.

    def __init__(
        self,
        encoder: keras.Model,
        *,
        n_latent: int = 64,
        inner_learning_rate: float = 1.0,
        inner_steps: int = 5,
        finetuning_learning_rate: float = 0.001,
        finetuning_steps: int = 5,
        sample: bool = True,
        largest_deviation: float | None = None,
        dropout_rate: float = 0.5,
        kl_weight: float = 1e-3,
        encoder_penalty_weight: float = 1e-9,
        l2_weight: float = 1e-8,
        orthogonality_weight: float = 1e-3,
        normalize: bool = True,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        check_integer("n_latent", n_latent, 1)
        check_positive("inner_learning_rate", inner_learning_rate)
        check_integer("inner_steps", inner_steps, 0)
        check_positive("finetuning_learning_rate", finetuning_learning_rate)
        check_integer("finetuning_steps", finetuning_steps, 0)
        if largest_deviation is not None:
            check_positive("largest_deviation", largest_deviation)
        check_in_range("dropout_rate", dropout_rate, 0, 1)
        check_in_range("kl_weight", kl_weight, 0)
        check_in_range("encoder_penalty_weight", encoder_penalty_weight, 0)
        check_in_range("l2_weight", l2_weight, 0)
        check_in_range("orthogonality_weight", orthogonality_weight, 0)
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
        self.n_latent = n_latent
        self.inner_learning_rate = inner_learning_rate
        self.inner_steps = inner_steps
        self.finetuning_learning_rate = finetuning_learning_rate
        self.finetuning_steps = finetuning_steps
        self.sample = sample
        self.largest_deviation = largest_deviation
        self.dropout_rate = dropout_rate
        self.kl_weight = kl_weight
        self.encoder_penalty_weight = encoder_penalty_weight
        self.l2_weight = l2_weight
        self.orthogonality_weight = orthogonality_weight
        self.normalize = normalize
        self.seed_generator = keras.random.SeedGenerator()
        self.build_if_possible()

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        if hasattr(self, "decoder"):
            return
        n_features, n_latent = math.prod(feature_shape), self.n_latent
        self.latent_encoder = self._matrix("latent_encoder", n_features, n_latent)
        self.relation_network = [
            self._matrix(f"relation_network_{i}", 2 * n_latent, 2 * n_latent) for i in range(3)
        ]
        self.decoder = self._matrix("decoder", n_latent, 2 * n_features)
        self.inner_learning_rates, self.finetuning_learning_rates = (
            self.add_weight((size,), keras.initializers.Constant(start), name=name)
            for name, size, start in (
                ("inner_learning_rates", n_latent, self.inner_learning_rate),
                ("finetuning_learning_rates", n_features, self.finetuning_learning_rate),
            )
        )

    def _matrix(self, name: str, n_inputs: int, n_outputs: int) -> keras.Variable:
        orthogonality = self.orthogonality_weight if name == "decoder" else 0.0

        def penalty(matrix: Any) -> tf.Tensor:
            return matrix_penalty(tf.convert_to_tensor(matrix), self.l2_weight, orthogonality)

        shape = n_inputs, n_outputs
        return self.add_weight(shape, "glorot_uniform", regularizer=penalty, name=name)

    # === The contract ===

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> State:
        """Takes the steps; returns the classes' weights. See `MetaLearner.adapt_task`."""
        if not training:
            return super().adapt_task(support_x, support_y, support_mask, training, n_way)
        members = self.members(support_y, support_mask, n_way)
        features, statistics = self.support_features(support_x, support_mask, training)
        features, members = (tf.cast(t, self.head_dtype) for t in (flat(features), members))
        return self._state(self._fitted(features, members, True), members, statistics)

    def fit_head(self, features: tf.Tensor, members: tf.Tensor) -> Head:
        return {"weights": tf.transpose(self._fitted(features, members, training=False))}

    def head_logits(self, head: Head, features: Any, compare: Comparison) -> Any:
        return compare.product(self._normalized(features), head["weights"])

    def predict_task(
        self,
        state: State,
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Returns the logits of the linear classifier. See `MetaLearner.predict_task`."""
        if not training:
            return super().predict_task(state, query_x, query_mask, training)
        features = self.query_features(state["statistics"], query_x, query_mask, training)
        features = self._normalized(tf.cast(flat(features), self.head_dtype))
        logits = tf.matmul(self._dropped(features, training), state["weights"])
        return without_missing(self.as_variables(logits), state["is_missing"])

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
        """Predicts after each step: those on codes first, then those on weights.

        See `MetaLearner.predict_task_by_step`. Steps beyond those of the learner are on weights.
        """
        members = self.members(support_y, support_mask, n_way)
        features, statistics = self.support_features(support_x, support_mask, training=False)
        features, members = (tf.cast(t, tf.float64) for t in (flat(features), members))
        on_codes = min(self.inner_steps, inner_steps)
        steps = self.descend(features, members, on_codes, inner_steps - on_codes, training=False)
        states = [self._state(vectors, members, statistics) for _, vectors in steps]
        return tf.stack([self.predict_task(state, query_x, query_mask) for state in states])

    def _fitted(self, features: tf.Tensor, members: tf.Tensor, training: bool) -> tf.Tensor:
        steps = self.inner_steps, self.finetuning_steps
        *_, (_, vectors) = self.descend(features, members, *steps, training)
        return vectors

    def _state(self, vectors: tf.Tensor, members: tf.Tensor, statistics: Any) -> State:
        is_missing = tf.reduce_sum(members, axis=0) == 0
        return {
            "weights": tf.cast(tf.transpose(vectors), self.head_dtype),
            "is_missing": tf.cast(is_missing, self.variable_dtype),
            "statistics": statistics,
        }

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables of the encoder: the state holds the weights."""
        return self.encoder.variables

    # === The algorithm ===

    def descend(
        self,
        features: tf.Tensor,
        members: tf.Tensor,
        inner_steps: int,
        finetuning_steps: int,
        training: bool,
    ) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Takes steps on codes, then on weights; in meta-training, adds the penalties of codes.

        Args:
            features: tf.Tensor `[S, d]`, of the dtype to compute in.
            members: tf.Tensor `[S, n_way]`. As in `fit_head`.
            inner_steps: int. How many steps change the codes.
            finetuning_steps: int. How many steps change the weights.
            training: bool. Whether this is meta-training.

        Yields:
            The codes `[S, n_latent]` and the classes' weights `[n_way, d]` after 0, 1, … steps.
        """
        # Padding is of any numbers, which may be large.
        features = tf.where(exists(members), features, tf.zeros([], features.dtype))
        features = self._normalized(features)
        start, divergence = self._codes(features, members, training)
        codes = start
        for _ in range(inner_steps):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(codes)
                weights = self._decoded(codes, members, training)
                loss = summed_loss(self._dropped(features, training), weights, members)
            yield codes, class_means(weights, members)
            (gradient,) = gradients_of(tape, loss, [codes])
            codes -= _as(features, self.inner_learning_rates) * gradient
        if training:
            change = mean_over_examples(tf.square(tf.stop_gradient(codes) - start), members)
            add_losses([self.kl_weight * divergence, self.encoder_penalty_weight * change])
        weights = self._decoded(codes, members, training)
        for _ in range(finetuning_steps):
            yield codes, class_means(weights, members)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                loss = summed_loss(self._dropped(features, training), weights, members)
            (gradient,) = gradients_of(tape, loss, [weights])
            weights -= _as(features, self.finetuning_learning_rates) * gradient
        yield codes, class_means(weights, members)

    def _codes(
        self, features: tf.Tensor, members: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns codes `[S, n_latent]` of the examples, and an estimate of their divergence."""
        embedded = tf.matmul(self._dropped(features, training), _as(features, self.latent_encoder))
        matrices = [_as(features, matrix) for matrix in self.relation_network]
        of_classes = class_means(relations(embedded, matrices, members), members)
        codes = self._drawn(tf.matmul(members, of_classes), 0.0, training)
        if training and self.sample:
            return codes.values, mean_over_examples(codes.log_ratio(), members)
        return codes.values, tf.zeros([], features.dtype)

    def _decoded(self, codes: tf.Tensor, members: tf.Tensor, training: bool) -> tf.Tensor:
        """Returns weights `[S, d]` of the examples, decoded from their codes."""
        n_features = tf.cast(self.finetuning_learning_rates.shape[0], codes.dtype)
        n_classes = tf.reduce_sum(tf.reduce_max(members, axis=0))
        of_glorot = tf.sqrt(2 / (n_features + n_classes))
        parameters = tf.matmul(codes, _as(codes, self.decoder))
        return self._drawn(parameters, of_glorot, training).values

    def _drawn(
        self, parameters: tf.Tensor, offset: float | tf.Tensor, training: bool
    ) -> NormalDraw:
        noise = None
        if training and self.sample:
            shape, dtype = tf.shape(parameters) // [1, 2], parameters.dtype.name
            noise = keras.random.normal(shape, dtype=dtype, seed=self.seed_generator)
        return draw(parameters, offset, noise, self.largest_deviation)

    def _dropped(self, features: tf.Tensor, training: bool) -> tf.Tensor:
        """Drops features at random in meta-training, anew in each call."""
        if not training or not self.dropout_rate:
            return features
        return keras.random.dropout(features, self.dropout_rate, seed=self.seed_generator)

    def _normalized(self, features: Any) -> Any:
        return unit(features) if self.normalize else features


def _as(like: tf.Tensor, variable: keras.Variable) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(variable), like.dtype)
