"""The meta-test protocol: a learner adapts to each episode and is measured on its queries."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.graph_checks import in_one_sentence
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.learners.output_kinds import by_class, is_binary, targets_of
from tfmeta.report import Evaluation

__all__ = ["Evaluation", "evaluate"]


def evaluate(
    learner: MetaLearner,
    episodes: tf.data.Dataset,
    n_episodes: int = 1000,
    inner_steps: int | None = None,
    verbose: bool = False,
) -> Evaluation:
    """Adapts a learner to each episode and measures it on the queries.

    Args:
        learner: MetaLearner. Its `output_kind` decides the metric: accuracy for logits and scores
            of classes, the mean squared error for values.
        episodes: tf.data.Dataset. Meta-batches, as `episodes(...)` of a source of data yields
            them. Queries with a sample weight of 0 are padding and do not count.
        n_episodes: int. Number of episodes to evaluate, ≥ 2. Defaults to 1000.
        inner_steps: int. If given, also measure after 0, 1, …, `inner_steps` inner steps, ≥ 0.
            Defaults to None.
        verbose: bool. Whether to show a progress bar. Defaults to False.

    Returns:
        An `Evaluation`. Its `mean` and `ci95` are those of the learner as it is (with
        `test_inner_steps` inner steps). An episode whose predictions are not finite counts as NaN,
        and so do mean and interval then; a warning tells how many episodes diverged.

    Raises:
        ValueError: If the data set ends too early, a number is too small, the labels or targets do
            not fit the predictions, or `inner_steps` is given and the learner has no inner steps.

    Example:

    >>> import tfmeta
    >>> network = tfmeta.backbones.mlp()
    >>> learner = tfmeta.MAML(network, inner_learning_rate=0.01, inner_loss="mse")
    >>> tasks = tfmeta.data.load("sinusoid").episodes(n_shot=5, n_query=5, seed=1)
    >>> result = evaluate(learner, tasks, n_episodes=50, inner_steps=2)
    >>> result.metric, result.values.shape, result.by_inner_step.shape
    ('mse', (50,), (3, 50))
    """
    if n_episodes < 2:
        raise ValueError(
            f"n_episodes must be at least 2, for a confidence interval; got {n_episodes}."
        )
    if inner_steps is not None and inner_steps < 0:
        raise ValueError(f"inner_steps must be at least 0; got {inner_steps}.")

    # Without AutoGraph, as in Keras: its traceback would bury an error.
    @tf.function(reduce_retracing=True, autograph=False)
    def predict(inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor | None]:
        predictions = learner(inputs, training=False)
        if inner_steps is None:
            return predictions, None
        return predictions, learner.predict_by_step(inputs, inner_steps)

    values: list[np.ndarray] = []
    by_step_values: list[np.ndarray] = []
    done, metric = 0, ""
    bar = keras.utils.Progbar(n_episodes, unit_name="episode", verbose=int(verbose))
    for batch in episodes:
        inputs, query_y, query_mask = keras.utils.unpack_x_y_sample_weight(batch)
        if query_y is None:
            raise ValueError("Episodes must be pairs (inputs, query_y); got inputs alone.")
        with in_one_sentence():
            predictions, by_step = predict(inputs)
        kind = learner.output_kind_of(inputs["support_y"][0])
        metric = "mse" if kind == "values" else "accuracy"
        query_y = _labels(learner, kind, np.asarray(query_y))
        mask = np.ones(query_y.shape[:2]) if query_mask is None else np.asarray(query_mask)
        predictions = np.asarray(by_class(predictions, kind)[0])
        query_y = _targets(metric, query_y, tuple(predictions.shape), mask)
        values.append(_metric(metric, query_y, predictions, mask))
        if by_step is not None:
            by_step = np.asarray(by_class(by_step, kind)[0])
            by_step_values.append(
                np.stack([_metric(metric, query_y, step, mask) for step in by_step])
            )
        done += len(query_y)
        bar.update(min(done, n_episodes))
        if done >= n_episodes:
            break
    if done < n_episodes:
        raise ValueError(f"{n_episodes} episodes were asked for, but the data set ended at {done}.")
    evaluation = Evaluation.of(
        metric,
        np.concatenate(values)[:n_episodes],
        np.concatenate(by_step_values, axis=1)[:, :n_episodes] if by_step_values else None,
    )
    if evaluation.n_diverged:
        first = evaluation.diverged[0]
        warnings.warn(
            f"{evaluation.n_diverged} of {n_episodes} episodes diverged: their predictions are not "
            f"finite, first those of episode {first}, counted from 0. So the mean is not either: "
            "lower inner_learning_rate, or look for NaN in the episodes.",
            stacklevel=2,
        )
    return evaluation


def _labels(learner: MetaLearner, kind: str, query_y: np.ndarray) -> np.ndarray:
    """Returns labels `[T, Q]` of one-hot ones and of a column for two classes; others as is."""
    if query_y.ndim == 3 and targets_of(getattr(learner, "inner_loss", None)) == "one-hot":
        return query_y.argmax(axis=-1)
    return query_y[..., 0] if query_y.ndim == 3 and is_binary(kind) else query_y


def _targets(
    metric: str, query_y: np.ndarray, shape: Sequence[int], mask: np.ndarray
) -> np.ndarray:
    """Checks targets, and adds the last dimension of predictions to targets of one value."""
    expected = tuple(shape[:-1]) if metric == "accuracy" else tuple(shape)
    if metric == "mse" and query_y.ndim == len(shape) - 1 and shape[-1] == 1:
        query_y = query_y[..., None]
    what = "labels" if metric == "accuracy" else "targets"
    if query_y.shape != expected:
        raise ValueError(
            f"The {what} of the queries must have the shape {expected} for predictions of shape "
            f"{tuple(shape)}; got {query_y.shape}."
        )
    real = query_y[mask > 0]
    if metric == "accuracy" and real.size and not 0 <= real.min() <= real.max() < shape[-1]:
        raise ValueError(
            f"The labels of the queries must be from 0 to {shape[-1] - 1}, for the learner tells "
            f"{shape[-1]} classes apart; got {real.min()} to {real.max()}."
        )
    return query_y


def _metric(
    metric: str, query_y: np.ndarray, predictions: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Returns each episode's metric `[T]`, over its queries without the padding.

    It is NaN if a prediction is not finite.
    """
    if metric == "accuracy":
        per_query = (predictions.argmax(axis=-1) == query_y).astype(np.float64)
        # Of NaN, `argmax` would make the first class, and infinite logits have no probabilities.
        per_query = np.where(np.isfinite(predictions).all(axis=-1), per_query, np.nan)
    else:
        error = (predictions.astype(np.float64) - query_y) ** 2
        per_query = error.reshape(*mask.shape, -1).mean(axis=-1)
    per_query = np.where(mask > 0, per_query * mask, 0)
    return per_query.sum(axis=1) / mask.sum(axis=1)
