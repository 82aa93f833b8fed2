"""MetaGAN on MAML: a classifier that learns from what a generator gets wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfmeta.checks import check_in_range
from tfmeta.learners.adversarial import Adversarial, mask_of_fakes
from tfmeta.learners.inner_batches import Support, support_batch
from tfmeta.learners.inner_loop import State
from tfmeta.learners.maml import MAML
from tfmeta.learners.real_or_fake import (
    log_odds_of_real,
    loss_as_fake,
    loss_as_real,
    pooled_mean,
)
from tfmeta.networks import BatchNorm, Normalization, collecting_losses, normalization, sum_of


@keras.saving.register_keras_serializable("tfmeta")
class MetaGANMAML(MAML, Adversarial):
    """Meta-trains MAML to tell a task's real examples from a generator's, besides their classes.

    With N logits l_c and Z = Σ_c exp(l_c), an example is real with the probability Z / (Z + 1). In
    meta-training, the inner steps and the outer loss add to the cross-entropy of labelled examples
    how well real and fake ones are told apart, L_D below. Episodes may have `unlabelled_x`
    `[T, U, *x]`, with `unlabelled_mask` `[T, U]` for padding: they count as real.

    The generator makes as many fake examples as there are queries (and for the inner steps, as
    there are support examples), from random numbers and a code of the support set. It learns to
    have them taken for real by the adapted network.

    After training, this is MAML: a task is learned from labelled examples alone, and predictions
    need no generator. `without_generator` returns that learner.

    Deviations from the paper:

    - In tests, the inner steps minimise the cross-entropy alone, as in MAML. With
      `inner_adversarial_weight=0` they do so in meta-training, too.
    - Both players take their steps at once, with the gradients at the same weights.
    - Unlabelled examples count as real in the outer loss, too, beside the queries.
    - The weights of L_D's terms are options.

    Args:
        network: keras.Model. The base network with logits; see `tfmeta.MAML`.
        inner_learning_rate: float > 0. Step size α of the inner steps. Defaults to 0.01.
        inner_steps: int ≥ 0. Inner steps in meta-training. Defaults to 1.
        test_inner_steps: int ≥ 0 or None. Inner steps elsewhere. Defaults to None, `inner_steps`.
        generator: keras.Model or None. From `[N, n_code + n_noise]` to examples `[N, *x]`. Defaults
            to None: `tfmeta.backbones.generator`, whose images are in [0, 1].
        example_encoder: keras.Model or None. From examples `[N, *x]` to `[N, 2·n_code]`. Averaged
            over the support set, these are the mean and log σ of the task's code. Defaults to None:
            `tfmeta.backbones.example_encoder`.
        n_code: int ≥ 1. Numbers in a task's code. Defaults to 64.
        n_noise: int ≥ 1. Random numbers from which a fake example is made. Defaults to 100.
        adversarial_weight: float ≥ 0. Weight of telling real from fake in the outer loss. Defaults
            to 1.
        inner_adversarial_weight: float ≥ 0. The same in the inner steps. Defaults to 1.
        generator_learning_rate: float > 0. Of the generator's optimizer, Adam with β₁ = 0.5 and
            β₂ = 0.9; `compile` sets the learner's. Defaults to 0.001.
        first_order: bool. Whether to ignore second derivatives. Defaults to False.
        inner_loss: str, function or keras.losses.Loss. A cross-entropy from logits. Defaults to
            None, sparse categorical cross-entropy.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Unlabelled
            and fake examples are each normalised like queries, by themselves. Defaults to
            `"transductive"`.
        inner_rule: str, dict or InnerRule. How an inner step changes the weights; see
            `tfmeta.MAML`. Defaults to `"sgd"`.
        inner_batch_size: int ≥ 1 or None. Support examples per inner step. Defaults to None, all.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`.

    Attributes:
        generator_optimizer: keras.optimizers.Adam. The generator's; the learner's file has its
            state.

    Raises:
        ValueError: Also if the inner loss takes no logits of two or more classes, or a network for
            the generator has other shapes.

    Reference:
        Zhang, Che, Ghahramani, Bengio, Song (2018), MetaGAN: An Adversarial Approach to Few-Shot
        Learning. Per task, L_D = E[log p(y | x, y ≤ N)] + E[log p(y ≤ N | x)]
        + E_{x ~ G}[log p(N+1 | x)], and G maximises E_{x ~ G}[log p(y ≤ N | x)].

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = MetaGANMAML(tfmeta.backbones.mlp(3, input_shape=(4,)), inner_learning_rate=0.1)
    >>> learner.compile("adam", metrics=["accuracy"])
    >>> x, y = np.random.rand(60, 4).astype("float32"), np.arange(60) % 3
    >>> episodes = tfmeta.data.load((x, y)).episodes(n_way=3, n_shot=1, n_query=5)
    >>> history = learner.fit(episodes, steps_per_epoch=1, shuffle=False, verbose=0)
    >>> learner.adapt(x[:3], y[:3]).predict(x[:7], verbose=0).shape
    (7, 3)
    """

    def __init__(
        self,
        network: keras.Model,
        inner_learning_rate: float = 0.01,
        *,
        inner_steps: int = 1,
        test_inner_steps: int | None = None,
        generator: keras.Model | None = None,
        example_encoder: keras.Model | None = None,
        n_code: int = 64,
        n_noise: int = 100,
        adversarial_weight: float = 1.0,
        inner_adversarial_weight: float = 1.0,
        generator_learning_rate: float = 0.001,
        first_order: bool = False,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_rule: Any = "sgd",
        inner_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_in_range("inner_adversarial_weight", inner_adversarial_weight, 0)
        super().__init__(
            network,
            inner_learning_rate,
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            generator=generator,
            example_encoder=example_encoder,
            n_code=n_code,
            n_noise=n_noise,
            adversarial_weight=adversarial_weight,
            generator_learning_rate=generator_learning_rate,
            first_order=first_order,
            inner_loss=inner_loss,
            batch_norm=batch_norm,
            inner_rule=inner_rule,
            inner_batch_size=inner_batch_size,
            **kwargs,
        )
        self.inner_adversarial_weight = inner_adversarial_weight
        if self.output_kind != "logits":
            raise ValueError(
                "MetaGAN needs logits, one for each class: leave inner_loss= out, or take a "
                f"categorical cross-entropy with from_logits=True; got {inner_loss!r}."
            )

    def networks_are_built(self) -> bool:
        """Returns whether all networks have their weights, and the generator can be made."""
        return super().networks_are_built() and self.example_shape is not None

    def build_meta_parameters(self) -> None:
        self.build_generator()

    # === Meta-training ===

    @property
    def has_inner_fakes(self) -> bool:
        return bool(self.inner_steps and self.inner_adversarial_weight)

    def adapt_against_generator(
        self,
        episode: dict[str, tf.Tensor],
        fakes: tf.Tensor | None,
        n_way: tf.Tensor | None,
    ) -> State:
        """Takes the inner steps with all terms of L_D."""
        support = Support(episode["support_x"], episode["support_y"], episode.get("support_mask"))
        if fakes is None:
            return self.adapt_task(*support, training=True, n_way=n_way)
        unlabelled = episode.get("unlabelled_x"), episode.get("unlabelled_mask")
        of_all: Any = _Support(*support, *unlabelled, fakes)
        *_, state = self.descend(of_all, self.inner_steps, True, self.first_order)
        return self.with_statistics(state, support, training=True)

    def step_loss(
        self, state: State, support: Any, step: int | tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None, list[tf.Tensor]]:
        """Returns the loss of an inner step. See `InnerLoopLearner.step_loss`."""
        if not isinstance(support, _Support):
            return super().step_loss(state, support, step, training)
        labelled = support.x, support.y, support.mask
        x, y, mask = support_batch(*labelled, step, self.inner_batch_size)
        by = normalization(self.batch_norm, "inner steps", training)
        with collecting_losses() as losses:
            predictions, non_trainable = self.forward(state, x, by, mask, training)
        loss = self.support_loss(y, predictions, mask)
        scale = self.loss_scale(self.network, y, predictions, mask)
        log_odds, masks = [log_odds_of_real(predictions, self.output_kind)], [mask]
        if support.unlabelled_x is not None:
            masks.append(support.unlabelled_mask)
            log_odds.append(self._inner_log_odds(state, support.unlabelled_x, by, masks[-1]))
        fake_mask = mask_of_fakes(support.mask)
        of_fakes = loss_as_fake(self._inner_log_odds(state, support.fakes, by, fake_mask))
        adversarial = pooled_mean([loss_as_real(v) for v in log_odds], masks)
        adversarial += pooled_mean([of_fakes], [fake_mask])
        loss += tf.cast(self.inner_adversarial_weight * adversarial, loss.dtype)
        added = sum_of(losses, loss.dtype)
        return loss if added is None else loss + added, scale, non_trainable

    def _inner_log_odds(
        self, state: State, x: tf.Tensor, by: Normalization, mask: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns log p(real) − log p(fake); what layers assign or add to the loss is dropped."""
        with collecting_losses():
            predictions, _ = self.forward(state, x, by, mask, training=True)
        return log_odds_of_real(predictions, self.output_kind)

    # === Afterwards ===

    def without_generator(self) -> MAML:
        """Makes MAML with a copy of this learner's weights, for files without the generator.

        Raises:
            ValueError: If this learner has no weights yet.
        """
        learner: MAML = self.plain_learner(MAML, network=self.network)
        return learner


class _Support(NamedTuple):
    """The support set of a task in meta-training, with what has no labels."""

    x: tf.Tensor  # [S, *x]
    y: tf.Tensor  # [S]
    mask: tf.Tensor | None  # [S], 0 for padding
    unlabelled_x: tf.Tensor | None  # [U, *x]
    unlabelled_mask: tf.Tensor | None  # [U], 0 for padding
    fakes: tf.Tensor  # [F, *x]
