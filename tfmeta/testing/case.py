"""A learner under test, and what its method promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfmeta.learners.meta_learner import MetaLearner


def _adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(0.01)


@dataclasses.dataclass(frozen=True)
class Case:
    """A learner under test, and what its method promises.

    Keep its network tiny and free of dropout: two ways of computing the same predictions would
    draw different masks. The learner is saved and loaded, so its class and the layers of its
    network must be registered with Keras.

    Args:
        name: str. The case's name in messages.
        make: Callable[[], MetaLearner]. Makes a new learner that is not compiled. Every call under
            the same seed of `keras.utils.set_random_seed` must give the same weights. It is also
            called under other dtype policies, so make losses and networks inside it.
        n_way: int or None. Classes per task, ≥ 2, or None for regression, where `y` has the shape
            `(1,)`. Defaults to 3.
        example_shape: tuple of int. The shape of one example `x`, which the learner's network must
            accept. Defaults to `(4,)`, a vector of four numbers: set it for images.
        n_shot: int. Support examples per class (regression: per task), ≥ 1. Defaults to 2.
        n_query: int. Queries per class (regression: per task), ≥ 1. Defaults to 3.
        loss: str, callable or keras.losses.Loss. The loss to compile with. Defaults to the
            learner's `default_loss()`, or to the mean squared error for regression.
        support_order_matters: bool. Whether the method depends on the order of the support set,
            for example because it takes it in mini-batches. Defaults to False.
        transductive: bool or None. Whether a query's prediction may depend on the other queries.
            Defaults to None: it may if the learner has `batch_norm="transductive"`.
        permute_outputs: Callable[[MetaLearner, Sequence[int]], None] or None. What a relabelling
            of the classes requires besides permuted support labels. A learner with one output unit
            per class gives a function of (learner, order) that permutes these units in place, such
            that unit `i` becomes what unit `order[i]` was. Defaults to None: nothing is required.
        exact_gradient: bool. Whether a training step follows the gradient of the compiled loss.
            False for first-order approximations. Defaults to True.
        optimizer: Callable[[], keras.optimizers.Optimizer]. Makes the optimizer of the check
            `learning`. Defaults to Adam with a learning rate of 0.01.
        training_steps: int. Meta-training steps of the check `learning`, each on 8 tasks, ≥ 1.
            Defaults to 150.
        random_training: bool. Whether a training step draws random numbers, other ones for each
            task. Then only predictions are compared where tasks change places, come alone, or a
            learner comes from its file, which keeps no seeds. Defaults to False.
        custom_training: bool or None. Whether the learner replaces `train_step` or
            `task_gradients` of `MetaLearner`. Defaults to None: its class is inspected.

    Raises:
        ValueError: If a size is not positive, or `n_way` is less than 2.

    Example:

    >>> import tfmeta
    >>> case = Case(
    ...     "MAML for regression",
    ...     lambda: tfmeta.MAML(
    ...         keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), inner_loss="mse"
    ...     ),
    ...     n_way=None,
    ... )
    >>> tfmeta.testing.checks(case)[:3]
    ['contract', 'eager_equals_graph', 'train_step_equals_default']
    >>> tfmeta.testing.run("contract", case)
    """

    name: str
    make: Callable[[], MetaLearner]
    n_way: int | None = 3
    example_shape: tuple[int, ...] = (4,)
    n_shot: int = 2
    n_query: int = 3
    loss: Any = None
    support_order_matters: bool = False
    transductive: bool | None = None
    permute_outputs: Callable[[MetaLearner, Sequence[int]], None] | None = None
    exact_gradient: bool = True
    optimizer: Callable[[], keras.optimizers.Optimizer] = _adam
    training_steps: int = 150
    custom_training: bool | None = None
    random_training: bool = False
    # Results that several checks compare with, by name and dtype policy: see `learner_runs`.
    _results: dict[Any, Any] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name in ("n_shot", "n_query", "training_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be ≥ 1; got {getattr(self, name)}.")
        if self.n_way is not None and self.n_way < 2:
            raise ValueError(f"n_way must be ≥ 2, or None for regression; got {self.n_way}.")
