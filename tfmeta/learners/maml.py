"""Model-agnostic meta-learning: an initialisation that a few gradient steps adapt to a task."""

from __future__ import annotations

from typing import Any

import keras

from tfmeta.learners.inner_loop import InnerLoopLearner
from tfmeta.networks import BatchNorm


@keras.saving.register_keras_serializable("tfmeta")
class MAML(InnerLoopLearner):
    """Meta-learns the initialisation of a network, so that gradient descent adapts it to a task.

    Deviations from the paper and its code:

    - The inner loss is the mean over the support set, as everywhere in Keras. The paper's code
      divides the summed loss by the shots per class alone, so its inner learning rates correspond
      to n_way times larger ones here. The recipes have rates that were tuned.
    - As in the paper's code, batch norm's shift and scale are meta-learned but not adapted, and
      gradients are not clipped in the inner loop.

    Args:
        network: keras.Model. The base network, any Keras 3 model with one input and one output,
            from `[N, *x]` to `[N, n_way]` logits or `[N, *y]`.
        inner_learning_rate: float > 0. Step size α of the inner gradient descent. If the inner rule
            learns its step sizes, they start here. Defaults to 0.01.
        inner_steps: int ≥ 0. Inner steps in meta-training; 0 is joint training on all tasks.
            Defaults to 1.
        test_inner_steps: int ≥ 0 or None. Inner steps outside of meta-training (`evaluate`,
            `predict`, `adapt`). Defaults to None, `inner_steps`.
        first_order: bool. Whether to ignore second derivatives (first-order MAML). Defaults to
            False.
        inner_loss: str, function or keras.losses.Loss. Averaged over the support set. By its name,
            as in Keras, sparse categorical cross-entropy takes probabilities, for a network that
            ends in a softmax. Regression needs another loss, for example `"mse"`. Defaults to None,
            sparse categorical cross-entropy from logits.
        batch_norm: str. How the network's `BatchNormalization` layers normalise. Layers with
            `trainable=False` keep to their moving averages in every mode. Defaults to
            `"transductive"`.
            `"transductive"`: the support set and the queries each by their own statistics, in
            training and test, as published. A prediction then depends on the other queries, and
            the file of an adapted model needs `import tfmeta` to load.
            `"support"`: the queries by the statistics of the support set under the adapted weights.
            `"running"`: Keras's own meaning. In meta-training, batch statistics, which also update
            the moving averages (with the mean over the tasks); elsewhere, moving averages.
        inner_rule: str, dict or InnerRule. How an inner step changes the weights: a name or an
            object of `tfmeta.inner_rules`, or an `InnerRule` of your own. Its trainable variables
            are meta-learned, too. Defaults to `"sgd"`.
        inner_batch_size: int ≥ 1 or None. Support examples per inner step, in a fixed pseudo-random
            order. Defaults to None, all of them in each step.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the network's.

    Raises:
        ValueError: If an option is none of the above, the network is no Keras model, the inner
            rule belongs to another learner, or is not defined for this number of steps.

    Reference:
        Finn, Abbeel, Levine (2017), Model-Agnostic Meta-Learning for Fast Adaptation of Deep
        Networks, https://arxiv.org/abs/1703.03400. Inner step: θ' = θ − α ∇_θ L(θ; support);
        meta-objective: min_θ Σ_tasks L(θ'; query) (Algorithm 2). The inner steps are
        `InnerLoopLearner.inner_step`, the meta-objective's gradient `MetaLearner.train_step`.

    Example:

    >>> import numpy as np, tfmeta
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
        *,
        inner_steps: int = 1,
        test_inner_steps: int | None = None,
        first_order: bool = False,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_rule: Any = "sgd",
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
            inner_rule=inner_rule,
            inner_batch_size=inner_batch_size,
        )
        self.build_if_possible()
