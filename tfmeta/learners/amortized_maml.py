"""Amortized MAML: a few steps turn a meta-learned prior into a task's posterior of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.checks import check_in_range, check_integer, check_positive
from tfmeta.learners.gaussian_weights import GaussianWeights
from tfmeta.learners.gradients import gradients_of
from tfmeta.learners.inner_batches import Support, support_batch
from tfmeta.learners.inner_loop import State
from tfmeta.learners.sampled_outputs import (
    averaged,
    check_likelihood,
    count,
    gaussian_kl,
    mean_of,
)
from tfmeta.learners.training_task import TaskUpdate, TrainingTask
from tfmeta.networks import (
    BatchNorm,
    collecting_losses,
    normalization,
    sum_of,
)


@keras.saving.register_keras_serializable("tfmeta")
class AmortizedMAML(GaussianWeights):
    """Meta-learns a Gaussian prior of the weights; inner steps turn it into a task's posterior.

    Every weight φ that adapts has a mean μ and a standard deviation σ. A task's posterior starts as
    the prior; each inner step follows the gradient of the variational bound (Bayes by Backprop).
    Predictions are those of several networks drawn from the posterior: their mean probabilities, as
    logits, or in regression their mean. `predict_distribution` also gives the variance.

    Outside of meta-training, random numbers are fixed by `seed`, so predictions are deterministic.
    In meta-training, each task and each step draws others, as dropout does.

    The divergence pulls the means back with the strength w/σ². Plain gradient steps on it are
    stable while α w is below the number of support examples times σ²: with small σ, lower the
    weight, the rate, or both.

    Deviations from the paper and public code:

    - The bound is divided by the number of support examples, so that learning rates mean what they
      mean in `MAML`; its optimum is the same. Public code adds the weighted divergence to a *mean*
      over the examples, so its weight of 0.1 is 0.1 times that number here.
    - Weights are drawn once for all examples of a set. The paper reparameterises activations, which
      has less noise and needs layers of its own.
    - In the outer loss, also divided by the number of examples, the hyper-prior has the weight
      `prior_weight`. It is 1/M for M training tasks, but episodes have no such number.
    - Batch norm's shift and scale have no variance, and do not adapt, as in `MAML`.

    A layer's constraints hold for the means, and for each drawn weight.

    Args:
        network: keras.Model. The base network; see `tfmeta.MAML`. Its own weights are the means μ.
        inner_learning_rate: float > 0. Step size α of the inner steps. Defaults to 0.01.
        inner_steps: int ≥ 0. Inner steps in meta-training. Defaults to 5.
        test_inner_steps: int ≥ 0 or None. Inner steps elsewhere. Defaults to None, `inner_steps`.
        samples: int ≥ 1. Networks drawn in each step, and in meta-training for predictions. Time
            and memory grow with it. Defaults to 10.
        test_samples: int ≥ 1 or None. Networks drawn for predictions elsewhere. Defaults to None,
            `samples`.
        kl_weight: float ≥ 0. Weight w of the divergence from the prior. 1 is Bayes' rule; less
            gives the data more weight. Defaults to 0.1.
        initial_log_sigma: (low, high), floats. Range from which the prior's log σ is drawn at the
            start. Defaults to (-4, -3).
        prior_weight: float ≥ 0. Weight of −log p(θ), the hyper-prior: μ ~ N(0, 1) and
            1/σ² ~ Gamma(`prior_concentration`, `prior_rate`). Defaults to 0.001, for 1,000 tasks.
        prior_concentration: float > 0. Shape of the gamma distribution. Defaults to 1.
        prior_rate: float > 0. Rate of the gamma distribution. Defaults to 0.01.
        noise_scale: float > 0. In regression, the standard deviation of a target around the
            network's output, in the unit of the targets. Defaults to 1.
        learn_noise_scale: bool. Whether that is meta-learned, too, and starts there. Then it also
            covers what the network misses. Defaults to False.
        seed: int from 0 to 2³¹ − 1. Seed of all draws. Defaults to 0.
        first_order: bool. Whether to ignore second derivatives. Defaults to False.
        inner_loss: str, function or keras.losses.Loss. A cross-entropy, or `"mse"`, which stands
            for Gaussian noise. Defaults to None, sparse categorical cross-entropy from logits.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. In the mode
            `"support"` each drawn network has statistics of its own. Defaults to `"transductive"`.
        inner_rule: str, dict or InnerRule. How an inner step changes μ and log σ; see
            `tfmeta.MAML`. Defaults to `"sgd"`.
        inner_batch_size: int ≥ 1 or None. Support examples per inner step. Defaults to None, all.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`.

    Attributes:
        log_sigmas: list of keras.Variable. The prior's log σ, one for each weight that adapts.

    Raises:
        ValueError: Also if the inner loss is no likelihood, or sums over examples.

    Reference:
        Ravi, Beatson (2019), Amortized Bayesian Meta-Learning,
        https://openreview.net/forum?id=rkgpy3C5tX. Algorithm 1 and equation (4): per task, from
        λ = θ, K steps λ ← λ − α ∇_λ {E_q[−log p(S|φ)] + w KL(q_λ ‖ p_θ)}; and
        min_θ Σ_tasks {E_q[−log p(S ∪ Q|φ)] + w KL(q_λ ‖ p_θ)} − log p(θ).

    Example:

    >>> import tfmeta
    >>> learner = AmortizedMAML(
    ...     tfmeta.backbones.mlp(), samples=2, inner_steps=2, inner_loss="mse", noise_scale=0.3
    ... )
    >>> learner.compile(optimizer="adam", loss="mse")
    >>> tasks = tfmeta.data.load("sinusoid").episodes(n_shot=5, meta_batch_size=4, seed=0)
    >>> history = learner.fit(tasks, steps_per_epoch=2, shuffle=False, verbose=0)
    >>> learner.adapt([[0.0], [1.0]], [[0.0], [0.8]]).predict(tf.zeros([3, 1]), verbose=0).shape
    (3, 1)
    """

    def __init__(
        self,
        network: keras.Model,
        inner_learning_rate: float = 0.01,
        *,
        inner_steps: int = 5,
        test_inner_steps: int | None = None,
        samples: int = 10,
        test_samples: int | None = None,
        kl_weight: float = 0.1,
        initial_log_sigma: Sequence[float] = (-4.0, -3.0),
        prior_weight: float = 0.001,
        prior_concentration: float = 1.0,
        prior_rate: float = 0.01,
        noise_scale: float = 1.0,
        learn_noise_scale: bool = False,
        seed: int = 0,
        first_order: bool = False,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_rule: Any = "sgd",
        inner_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_integer("samples", samples, 1)
        if test_samples is not None:
            check_integer("test_samples", test_samples, 1)
        check_in_range("kl_weight", kl_weight, 0)
        check_in_range("prior_weight", prior_weight, 0)
        check_positive("prior_concentration", prior_concentration)
        check_positive("prior_rate", prior_rate)
        check_positive("noise_scale", noise_scale)
        check_integer("seed", seed, 0)
        if seed >= 2**31:
            raise ValueError(f"seed must be below 2³¹; got {seed}.")
        low_high = tuple(initial_log_sigma)
        if len(low_high) != 2 or not low_high[0] <= low_high[1]:
            raise ValueError(
                f"initial_log_sigma must be two numbers (low, high); got {initial_log_sigma!r}."
            )
        super().__init__(
            network,
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
        check_likelihood(self.inner_loss)
        if learn_noise_scale and self.output_kind != "values":
            raise ValueError('learn_noise_scale is for regression, with inner_loss="mse".')
        self.samples = samples
        self.test_samples = samples if test_samples is None else test_samples
        self.kl_weight, self.prior_weight = kl_weight, prior_weight
        self.initial_log_sigma = low_high
        self.prior_concentration, self.prior_rate = prior_concentration, prior_rate
        self.noise_scale, self.learn_noise_scale = noise_scale, learn_noise_scale
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.build_if_possible()

    # === The bound ===

    def kl_divergence(self, state: State) -> tf.Tensor:
        """Returns KL(q ‖ p) of a task's posterior and the prior, which has gradients, too."""
        prior = self.posterior(self.start_weights()[0])
        return gaussian_kl(*self.posterior(state["trainable"]), *prior)

    def negative_log_prior(self) -> tf.Tensor:
        """Returns −log p(θ), the hyper-prior, up to a constant."""
        means, log_sigmas = self.posterior(self.start_weights()[0])
        total = tf.zeros([], self.variable_dtype)
        for mean, log_sigma in zip(means, log_sigmas, strict=True):
            precision = tf.exp(-2 * log_sigma)
            total += tf.reduce_sum(tf.square(mean)) / 2 + tf.reduce_sum(
                self.prior_rate * precision + 2 * (self.prior_concentration - 1) * log_sigma
            )
        return total

    def negative_log_likelihood(
        self, y: tf.Tensor, outputs: Sequence[tf.Tensor], mask: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns E_q[−log p(y|φ)] per example: the mean over drawn networks and examples.

        Args:
            y: tf.Tensor `[N]` or `[N, *y]`.
            outputs: list of tf.Tensor `[N, …]`, of the networks.
            mask: tf.Tensor `[N]` or None. Weights of the examples, 0 for padding.
        """
        loss = mean_of([self.support_loss(y, output, mask) for output in outputs])
        if self.output_kind != "values":
            return loss
        n_values = math.prod(outputs[0].shape[1:])
        log_noise = self.log_noise()
        constant = math.log(2 * math.pi) / 2
        return n_values * (loss * tf.exp(-2 * log_noise) / 2 + log_noise + constant)

    # === The algorithm ===

    def step_loss(
        self, state: State, support: Support, step: int | tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None, list[tf.Tensor]]:
        """Returns the negative variational bound, per example. See `InnerLoopLearner.step_loss`."""
        x, y, mask = support_batch(*support, step, self.inner_batch_size)
        by = normalization(self.batch_norm, "inner steps", training)
        with collecting_losses() as losses:
            seed = self._seed(step, training)
            outputs, values = self.outputs(state, seed, x, mask, by, training, self.samples)
        loss = self.negative_log_likelihood(y, outputs, mask)
        loss += self.kl_weight * self.kl_divergence(state) / count(support.x, support.mask, loss)
        added = sum_of(losses, loss.dtype)
        loss = loss if added is None else loss + added / len(outputs)
        return loss, self.loss_scale(self.network, y, outputs[0], mask), values[-1]

    # === Meta-training ===

    def _task_weights(self, n_tasks: tf.Tensor, sample_weight: Any) -> tf.Tensor:
        """Returns equal weights `[T]` for all tasks: the outer loss is not the compiled one."""
        return tf.fill([n_tasks], 1 / tf.cast(n_tasks, keras.backend.floatx()))

    def task_gradients(self, task: TrainingTask) -> TaskUpdate:
        """Takes the gradient of the outer loss, which replaces the compiled one in training.

        Sample weights weigh a task's queries against each other; those of 0 do not count.
        """
        with tf.GradientTape() as tape:
            (loss, predictions), assigned = self.run_task(
                lambda: self._outer_loss(task), task.index, training=True
            )
            # What a kernel_regularizer adds; Keras divides all among the replicas.
            regularisation = sum_of(self.losses, loss.dtype)
            loss = loss if regularisation is None else loss + regularisation
            loss = keras_internals.additional_loss(self, loss * tf.cast(task.weight, loss.dtype))
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = gradients_of(tape, scaled_loss, self.trainable_variables)
        return TaskUpdate(loss, gradients, predictions, assigned)

    def _outer_loss(self, task: TrainingTask) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns a task's outer loss, per example, and its predictions."""
        episode, y = task.episode, task.y[0]
        support = Support(episode["support_x"], episode["support_y"], episode.get("support_mask"))
        state = self.adapt_task(*support, training=True)
        by = normalization(self.batch_norm, "inner steps", training=True)
        plain = {**state, "statistics": None}
        with collecting_losses():  # Those of the queries count.
            of_support, values = self.outputs(
                plain, state["seed"], support.x, support.mask, by, training=True
            )
        if self.batch_norm != "support":
            state = {**state, "non_trainable": values[-1]}
        query_mask = episode.get("query_mask")
        with collecting_losses() as losses:
            of_queries = self.query_outputs(state, episode["query_x"], query_mask, training=True)
        weights = query_mask if task.sample_weight is None else task.sample_weight[0]
        support_loss = self.negative_log_likelihood(support.y, of_support, support.mask)
        query_loss = self.negative_log_likelihood(y, of_queries, weights)
        n_support = count(support.x, support.mask, support_loss)
        n_queries = count(y, weights, support_loss)
        loss = n_support * support_loss + n_queries * query_loss
        loss += self.kl_weight * self.kl_divergence(state)
        loss += self.prior_weight * self.negative_log_prior()
        loss /= n_support + n_queries
        added = sum_of(losses, loss.dtype)
        loss = loss if added is None else loss + added / len(of_queries)
        return loss, averaged(of_queries, self.output_kind)
