"""Makes, compiles, trains and calls the learner of a case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np

from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.task_mapping import TaskMapping
from tfmeta.testing.case import Case
from tfmeta.testing.episodes import Inputs, make_episodes

LEARNING_RATE = 0.1

Result = TypeVar("Result")


def new_learner(case: Case) -> MetaLearner:
    """Makes the learner of a case, always with the same weights.

    Raises:
        TypeError: If the case makes something else.
    """
    keras.utils.set_random_seed(0)
    learner = case.make()
    if not isinstance(learner, MetaLearner):
        raise TypeError(f"make must return a MetaLearner; got {type(learner).__name__}.")
    return learner


def compiled_learner(
    case: Case,
    learning_rate: float = LEARNING_RATE,
    run_eagerly: bool = True,
    task_mapping: TaskMapping = "loop",
) -> MetaLearner:
    """Makes the learner of a case, builds it and compiles it with plain SGD.

    It runs eagerly by default: tracing a graph costs more than it saves in one or two steps.
    """
    learner = new_learner(case)
    learner.task_mapping = task_mapping
    metrics = ["accuracy"] if case.n_way else ["mae"]
    optimizer = keras.optimizers.SGD(learning_rate)
    learner.compile(optimizer, loss_of(case, learner), metrics=metrics, run_eagerly=run_eagerly)
    learner(make_episodes(case)[0])
    return learner


def loss_of(case: Case, learner: MetaLearner) -> Any:
    """Returns the loss to compile with."""
    if case.loss is None and case.n_way:
        return learner.default_loss()
    if case.loss is None:
        return keras.losses.MeanSquaredError()
    if isinstance(case.loss, keras.losses.Loss):
        # A loss computes in the float type under which it was made, so make a new one.
        config = {k: v for k, v in case.loss.get_config().items() if k != "dtype"}
        return type(case.loss).from_config(config)
    return case.loss


def is_sum(loss: Any) -> bool:
    """Returns whether a loss sums the losses of the tasks instead of averaging them."""
    return getattr(loss, "reduction", None) == "sum"


def predictions(learner: MetaLearner, inputs: Inputs) -> np.ndarray:
    """Predicts the queries, outside of training."""
    return np.asarray(learner(inputs, training=False))


def weights_after(learner: MetaLearner, *steps: Any) -> list[np.ndarray]:
    """Trains the learner on these meta-batches and returns its weights."""
    for data in steps:
        learner.train_on_batch(*data)
    return weights(learner)


def weights(learner: MetaLearner) -> list[np.ndarray]:
    """Returns the values of the learner's weights."""
    return [v.numpy() for v in learner.weights]


def state(learner: MetaLearner) -> list[tuple[keras.Variable, np.ndarray]]:
    """Returns all variables with their values, except those of metrics, which may change."""
    metrics = {id(v) for v in learner.metrics_variables}
    return [(v, v.numpy()) for v in learner.variables if id(v) not in metrics]


# === Results that several checks compare with ===


def first_predictions(case: Case) -> np.ndarray:
    """Returns a new learner's predictions for `make_episodes(case)`, computed once per case."""
    return _once(
        case,
        "predictions",
        lambda: _read_only(predictions(new_learner(case), make_episodes(case)[0])),
    )


def first_trained_weights(case: Case) -> list[np.ndarray]:
    """Returns the weights after a training step on `make_episodes(case)`, computed once per case.

    The step is that of `compiled_learner(case)`.
    """
    return _once(
        case,
        "trained weights",
        lambda: [
            _read_only(value)
            for value in weights_after(compiled_learner(case), make_episodes(case))
        ],
    )


def is_transductive(case: Case) -> bool:
    """Returns whether a query's prediction may depend on the other queries."""
    if case.transductive is not None:
        return case.transductive
    return _class_and_mode(case)[1] == "transductive"


def has_custom_training(case: Case) -> bool:
    """Returns whether the learner replaces the default training step or a task's gradients."""
    if case.custom_training is not None:
        return case.custom_training
    learner_class = _class_and_mode(case)[0]
    return any(
        getattr(learner_class, name, None) is not getattr(MetaLearner, name, None)
        for name in ("train_step", "task_gradients")
    )


def _class_and_mode(case: Case) -> tuple[type[MetaLearner], Any]:
    def inspect() -> tuple[type[MetaLearner], Any]:
        learner = new_learner(case)
        return type(learner), getattr(learner, "batch_norm", None)

    return _once(case, "class and mode", inspect)


def _once(case: Case, name: str, compute: Callable[[], Result]) -> Result:
    key = (name, keras.config.floatx(), keras.config.dtype_policy().name)
    if key not in case._results:
        case._results[key] = compute()
    return case._results[key]


def _read_only(array: np.ndarray) -> np.ndarray:
    """Copies an array, so that no check can change it."""
    array = np.array(array)
    array.flags.writeable = False
    return array
