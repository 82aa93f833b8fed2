"""Meta-SGD: MAML with a meta-learned step size for every parameter."""

from __future__ import annotations

from typing import Any

import keras

from tfmeta.learners.functional import BatchNorm
from tfmeta.learners.maml import MAML


@keras.saving.register_keras_serializable("tfmeta")
class MetaSGD(MAML):
    """Meta-learns an initialisation and a step size for every single parameter.

    It is MAML with the inner rule `"per_parameter"`. Deviations from the paper: all step sizes
    start at `inner_learning_rate` rather than at random between 0.005 and 0.1; and as in `MAML`,
    the inner loss is a mean over the support set, and batch norm's shift and scale do not adapt.

    Args:
        network: The base network; see `tfmeta.MAML`.
        inner_learning_rate: What all step sizes start from, > 0.
        inner_steps: Inner steps in meta-training; the paper takes one.
        test_inner_steps: Inner steps elsewhere; defaults to `inner_steps`.
        first_order: Whether to ignore second derivatives. (The step sizes are learned all the
            same.)
        inner_loss: Any Keras loss; defaults to sparse categorical cross-entropy from logits.
        batch_norm: How `BatchNormalization` layers normalise; see `tfmeta.MAML`.
        **kwargs: As in `keras.Model`: `name`, `dtype`.

    Reference:
        Li, Zhou, Chen, Li (2017), Meta-SGD: Learning to Learn Quickly for Few-Shot Learning,
        https://arxiv.org/abs/1707.09835. Equation (2): θ' = θ − α ∘ ∇L(θ; support), with θ and α
        meta-learned by Σ_tasks L(θ'; query) (equation 3, Algorithm 1).

    Example:

    >>> import tfmeta
    >>> learner = MetaSGD(tfmeta.backbones.mlp(), inner_learning_rate=0.01, inner_loss="mse")
    >>> learner.compile(optimizer="adam", loss="mse")
    >>> tasks = tfmeta.data.load("sinusoid").episodes(n_shot=5, meta_batch_size=4, seed=0)
    >>> history = learner.fit(tasks, steps_per_epoch=2, shuffle=False, verbose=0)
    >>> learner.count_params() == 2 * learner.network.count_params()
    True
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
        super().__init__(
            network,
            inner_learning_rate,
            inner_steps,
            test_inner_steps,
            first_order,
            inner_loss,
            batch_norm,
            inner_rule="per_parameter",
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["inner_rule"]
        return config
