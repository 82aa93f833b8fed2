"""Meta-SGD: MAML with a meta-learned step size for every parameter."""

from __future__ import annotations

from typing import Any

import keras

from tfmeta.learners.inner_loop import InnerLoopLearner
from tfmeta.networks import BatchNorm


@keras.saving.register_keras_serializable("tfmeta")
class MetaSGD(InnerLoopLearner):
    """Meta-learns an initialisation and a step size for every single parameter.

    It is MAML with the inner rule `"per_parameter"`. Deviations from the paper: all step sizes
    start at `inner_learning_rate`, while the paper draws them between 0.005 and 0.1; and as in
    `MAML`, the inner loss is a mean over the support set, and batch norm's shift and scale do not
    adapt.

    Args:
        network: keras.Model. The base network; see `tfmeta.MAML`.
        inner_learning_rate: float > 0. All step sizes start here. Defaults to 0.01.
        inner_steps: int ≥ 0. Inner steps in meta-training; the paper takes one. Defaults to 1.
        test_inner_steps: int ≥ 0 or None. Inner steps elsewhere. Defaults to None, `inner_steps`.
        first_order: bool. Whether to ignore second derivatives. The step sizes are learned all the
            same. Defaults to False.
        inner_loss: str, function or keras.losses.Loss. See `tfmeta.MAML`. Defaults to None, sparse
            categorical cross-entropy from logits.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        inner_batch_size: int ≥ 1 or None. Support examples per inner step. Defaults to None, all.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`.

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
        *,
        inner_steps: int = 1,
        test_inner_steps: int | None = None,
        first_order: bool = False,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            network,
            kwargs,
            inner_learning_rate=inner_learning_rate,
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            first_order=first_order,
            inner_loss=inner_loss,
            batch_norm=batch_norm,
            inner_rule="per_parameter",
            inner_batch_size=inner_batch_size,
        )
        self.build_if_possible()
