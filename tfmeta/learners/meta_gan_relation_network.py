"""MetaGAN on the Relation Network: unlabelled examples and fake ones train the comparison, too."""

from __future__ import annotations

from typing import Any

import keras

from tfmeta.learners.adversarial import Adversarial
from tfmeta.learners.relation_network import RelationNetwork
from tfmeta.networks import BatchNorm


@keras.saving.register_keras_serializable("tfmeta")
class MetaGANRelationNetwork(RelationNetwork, Adversarial):
    """Meta-trains a Relation Network to tell real examples from a generator's, besides classes.

    A score r_c is the sigmoid of a logit, so an example is real with the probability Z / (Z + 1)
    with Z = Σ_c r_c / (1 − r_c). In meta-training, the loss of the labelled queries gets what is
    lost by telling queries and unlabelled examples from fake ones. Episodes may have
    `unlabelled_x` `[T, U, *x]`, with `unlabelled_mask` `[T, U]` for padding: they count as real.

    The generator makes as many fake examples as there are queries, from random numbers and a code
    of the support set, and learns to have them taken for real.

    After training, this is a Relation Network, whose predictions need no generator.
    `without_generator` returns that learner.

    Deviations from the paper:

    - Labelled queries have the loss that is compiled, by default the Relation Network's own squared
      error, instead of a cross-entropy of the scores.
    - The relation module ends in a sigmoid, as the Relation Network's does, which is undone here.
      With scores as logits, p(real) would be at least N / (N + 1).
    - Both players take their steps at once, with the gradients at the same weights.

    Args:
        encoder: keras.Model. The embedding module; see `tfmeta.RelationNetwork`.
        relation_module: keras.Model or None. The relation module, with a sigmoid at its end; see
            `tfmeta.RelationNetwork`. Defaults to None, one that fits the encoder.
        generator: keras.Model or None. From `[N, n_code + n_noise]` to examples `[N, *x]`. Defaults
            to None: `tfmeta.backbones.generator`, whose images are in [0, 1].
        example_encoder: keras.Model or None. From examples `[N, *x]` to `[N, 2·n_code]`. Averaged
            over the support set, these are the mean and log σ of the task's code. Defaults to None:
            `tfmeta.backbones.example_encoder`.
        n_code: int ≥ 1. Numbers in a task's code. Defaults to 64.
        n_noise: int ≥ 1. Random numbers from which a fake example is made. Defaults to 100.
        adversarial_weight: float ≥ 0. Weight of telling real from fake. It must suit the squared
            error, which is far smaller than a cross-entropy: with 1, a short training on Omniglot
            learned no classes. Defaults to 0.1.
        generator_learning_rate: float > 0. Of the generator's optimizer, Adam with β₁ = 0.5 and
            β₂ = 0.9; `compile` sets the learner's. Defaults to 0.001.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Unlabelled
            and fake examples are each normalised like queries, by themselves. Defaults to
            `"transductive"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`.

    Attributes:
        generator_optimizer: keras.optimizers.Adam. The generator's; the learner's file has its
            state.

    Raises:
        ValueError: Also if a network for the generator has other shapes.

    Reference:
        Zhang, Che, Ghahramani, Bengio, Song (2018), MetaGAN: An Adversarial Approach to Few-Shot
        Learning. L_D and the generator's loss are those of `tfmeta.MetaGANMAML`.

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = MetaGANRelationNetwork(tfmeta.backbones.mlp(8, input_shape=(4,)))
    >>> learner.compile("adam", metrics=["accuracy"])
    >>> x, y = np.random.rand(60, 4).astype("float32"), np.arange(60) % 3
    >>> episodes = tfmeta.data.load((x, y)).episodes(n_way=3, n_shot=1, n_query=5)
    >>> history = learner.fit(episodes, steps_per_epoch=1, shuffle=False, verbose=0)
    >>> learner.adapt(x[:3], y[:3]).predict(x[:7], verbose=0).shape
    (7, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        relation_module: keras.Model | None = None,
        *,
        generator: keras.Model | None = None,
        example_encoder: keras.Model | None = None,
        n_code: int = 64,
        n_noise: int = 100,
        adversarial_weight: float = 0.1,
        generator_learning_rate: float = 0.001,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        if kwargs.get("n_targets") is not None:
            raise ValueError(
                "MetaGAN tells classes from fakes, and regression has no classes: leave n_targets= "
                "out, or take tfmeta.RelationNetwork."
            )
        super().__init__(
            encoder,
            relation_module,
            generator=generator,
            example_encoder=example_encoder,
            n_code=n_code,
            n_noise=n_noise,
            adversarial_weight=adversarial_weight,
            generator_learning_rate=generator_learning_rate,
            batch_norm=batch_norm,
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["n_targets"]  # It is always None.
        return config

    def build_if_possible(self) -> None:
        if self.example_shape is not None:
            super().build_if_possible()

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        super().build_comparison(feature_shape)
        self.build_generator()

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables of the encoder and the relation module."""
        modules = (self.encoder, self.relation_module)
        return [v for m in modules if m is not None for v in m.variables]

    def without_generator(self) -> RelationNetwork:
        """Makes a Relation Network with a copy of this learner's weights.

        Raises:
            ValueError: If this learner has no weights yet.
        """
        learner: RelationNetwork = self.plain_learner(
            RelationNetwork, encoder=self.encoder, relation_module=self.relation_module
        )
        return learner
