"""The meta-test protocol: mean and 95 % confidence interval over episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.meta_learner import MetaLearner


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A learner's measured performance.

    Attributes:
        metric: "accuracy" (of 1) or "mse".
        values: `[n_episodes]`, the metric of each episode.
        by_inner_step: `[inner_steps + 1, n_episodes]`, the same after 0, 1, … inner steps; None
            where that was not asked for.
    """

    metric: str
    values: np.ndarray
    by_inner_step: np.ndarray | None = None

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % confidence interval of the mean."""
        return ci95(self.values)

    @property
    def n_episodes(self) -> int:
        return len(self.values)

    def __str__(self) -> str:
        return f"{self.metric} {self.mean:.4f} ± {self.ci95:.4f} ({self.n_episodes} episodes)"

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, for JSON; None where they are not finite, as of tasks that diverge."""

        def of(values: np.ndarray) -> dict[str, float | None]:
            with np.errstate(invalid="ignore", over="ignore"):
                mean, interval = float(np.mean(values)), ci95(values)
            if not np.isfinite([mean, interval]).all():
                return {"mean": None, "ci95": None}
            return {"mean": mean, "ci95": interval}

        summary: dict[str, Any] = {
            "metric": self.metric,
            **of(self.values),
            "n_episodes": self.n_episodes,
        }
        if self.by_inner_step is not None:
            summary["by_inner_step"] = [
                {"inner_steps": step, **of(values)}
                for step, values in enumerate(self.by_inner_step)
            ]
        return summary


def ways_and_shots(episodes: Mapping[str, Any]) -> str:
    """In words, as in "5-way 1-shot".

    Args:
        episodes: Has `n_shot`, and `n_way` where there are classes.
    """
    n_way = f"{episodes['n_way']}-way " if "n_way" in episodes else ""
    return f"{n_way}{episodes['n_shot']}-shot"


def ci95(values: np.ndarray) -> float:
    """Half-width of the 95 % confidence interval of a mean: 1.96 σ / √n, σ with n - 1.

    Args:
        values: `[n]`, one per episode, n ≥ 2.

    Example:

    >>> round(ci95(np.array([0.0, 1.0, 1.0, 1.0])), 4)
    0.49
    """
    return float(1.96 * np.std(values, ddof=1) / np.sqrt(len(values)))


def evaluate(
    learner: MetaLearner,
    episodes: tf.data.Dataset,
    n_episodes: int = 1000,
    inner_steps: int | None = None,
    verbose: bool = False,
) -> Evaluation:
    """Adapts a learner to each episode and measures it on the queries.

    Args:
        learner: A meta-learner.
        episodes: A data set of meta-batches, as `episodes(...)` of a source of data yields them.
        n_episodes: How many episodes to evaluate, > 1.
        inner_steps: To measure after 0, 1, …, `inner_steps` inner steps, too; ≥ 0.
        verbose: Whether to show a progress bar.

    Returns:
        The accuracy, or the mean squared error if the targets have the shape of the predictions
        (or lack a last dimension of 1).
        `mean` and `ci95` are those of the learner as it is (`test_inner_steps` of MAML).

    Raises:
        ValueError: If the data set ends too early, a number is too small, or the learner has no
            inner steps.

    Example:

    >>> import tfmeta
    >>> learner = tfmeta.MAML(tfmeta.backbones.mlp(), inner_learning_rate=0.01, inner_loss="mse")
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

    # Like Keras's own functions without AutoGraph, which would bury an error in its traceback.
    @tf.function(reduce_retracing=True, autograph=False)
    def predict(inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor | None]:
        predictions = learner(inputs, training=False)
        if inner_steps is None:
            return predictions, None
        return predictions, learner.predict_by_step(inputs, inner_steps)

    values: list[np.ndarray] = []
    by_step_values: list[np.ndarray] = []
    metric, done = "mse", 0
    bar = keras.utils.Progbar(n_episodes, unit_name="episode", verbose=int(verbose))
    for batch in episodes:
        inputs, query_y, query_mask = keras.utils.unpack_x_y_sample_weight(batch)
        predictions, by_step = predict(inputs)
        query_y = np.asarray(query_y)
        if query_y.ndim == len(predictions.shape) - 1 and predictions.shape[-1] == 1:
            query_y = query_y[..., None]
        metric = "mse" if query_y.shape == tuple(predictions.shape) else "accuracy"
        mask = np.ones(query_y.shape[:2]) if query_mask is None else np.asarray(query_mask)
        values.append(_metric(metric, query_y, predictions.numpy(), mask))
        if by_step is not None:
            by_step_values.append(
                np.stack([_metric(metric, query_y, p, mask) for p in by_step.numpy()])
            )
        done += len(query_y)
        bar.update(min(done, n_episodes))
        if done >= n_episodes:
            break
    if done < n_episodes:
        raise ValueError(f"{n_episodes} episodes were asked for, but the data set ended at {done}.")
    return Evaluation(
        metric,
        np.concatenate(values)[:n_episodes],
        np.concatenate(by_step_values, axis=1)[:, :n_episodes] if by_step_values else None,
    )


def _metric(
    metric: str, query_y: np.ndarray, predictions: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """`[T]`: the metric of each of `T` episodes over its queries that are no padding."""
    if metric == "accuracy":
        per_query = (predictions.argmax(axis=-1) == query_y).astype(np.float64)
    else:
        error = (predictions.astype(np.float64) - query_y) ** 2
        per_query = error.reshape(*mask.shape, -1).mean(axis=-1)
    return (per_query * mask).sum(axis=1) / mask.sum(axis=1)
