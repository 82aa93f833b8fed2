"""Plots of learning and predictions. Matplotlib is imported with the first plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmeta.files import replacing
from tfmeta.inner_rules import Schedule
from tfmeta.learners import MetaLearner
from tfmeta.report import Estimate, Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD, BAD = "#2a7f3f", "#c0392b"

# Points above this multiple of the error before adaptation are left out: some tasks diverge.
DIVERGED = 100


def learning_curve(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draws loss and accuracy by epoch, in meta-training and validation.

    Args:
        history: sequence of dict. Rows with `epoch`, `loss`, `val_loss` and, for classification,
            `accuracy` and `val_accuracy`.
        path: Path. The PNG file to write.
    """
    metrics = ["loss", "accuracy"] if "accuracy" in history[0] else ["loss"]
    figure, axes = _figure(len(metrics))
    epochs = [row["epoch"] for row in history]
    for axis, metric in zip(axes, metrics, strict=True):
        axis.plot(epochs, [row[metric] for row in history], label="meta-training")
        axis.plot(epochs, [row[f"val_{metric}"] for row in history], label="validation")
        axis.set(xlabel="epoch", ylabel=metric)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    _write(figure, path)


def adaptation_curve(
    evaluations: Sequence[Evaluation], path: Path, test_inner_steps: int | None = None
) -> None:
    """Draws the error by inner step, with its 95 % confidence interval, a line per setting.

    A mean that is not finite, or a hundred times that before adaptation, is left out.

    Args:
        evaluations: sequence of Evaluation. The settings, made with `inner_steps=`.
        path: Path. The PNG file to write.
        test_inner_steps: int. The learner's own number of inner steps. If it is larger than what
            was measured step by step, each line ends with it. Defaults to None.

    Raises:
        ValueError: If an evaluation was made without `inner_steps=`.
    """
    from matplotlib.ticker import LogLocator

    if not all(evaluation.steps for evaluation in evaluations):
        raise ValueError("This evaluation was made without inner_steps=.")
    is_accuracy = evaluations[0].metric == "accuracy"
    figure, (axis,) = _figure(1)
    for evaluation in evaluations:
        points = _points(evaluation, test_inner_steps)
        means = np.array([estimate.mean for estimate in points.values()])
        intervals = np.array([estimate.ci95 for estimate in points.values()])
        if is_accuracy:
            means, intervals = 100 * (1 - means), 100 * intervals
        words = filter(None, [evaluation.ways_and_shots, evaluation.batch_norm])
        axis.errorbar(
            list(points),
            means,
            # A logarithmic axis cannot show what is below zero.
            np.array([np.minimum(intervals, 0.9 * means), intervals]),
            label=", ".join(words) or None,
            marker="o",
            markersize=3,
            capsize=2,
            linewidth=1,
        )
    axis.set(xlabel="inner steps", ylabel="error, %" if is_accuracy else "MSE", yscale="log")
    axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_title(f"{evaluations[0].n_episodes:,} test episodes, 95 % confidence", fontsize=10)
    axis.grid(alpha=0.3)
    if evaluations[0].ways_and_shots:
        figure.set_size_inches(6.8, 3.6)
        figure.legend(loc="outside right center", fontsize=8)
    _write(figure, path)


def _points(evaluation: Evaluation, test_inner_steps: int | None) -> dict[int, Estimate]:
    """Returns the estimates to draw, by their number of inner steps."""
    points = dict(enumerate(evaluation.steps))
    if test_inner_steps is not None and test_inner_steps >= len(points):
        points[test_inner_steps] = evaluation.estimate
    first = points[0]
    largest = DIVERGED * first.mean if first.is_finite and first.mean else np.inf
    return {
        step: estimate
        for step, estimate in points.items()
        if estimate.is_finite and estimate.mean <= largest
    }


def episode_sheet(learner: MetaLearner, meta_batch: Any, path: Path, n_episodes: int = 3) -> None:
    """Draws episodes: a support image of each class, then its queries with the predictions.

    Args:
        learner: MetaLearner. A learner of image classes.
        meta_batch: tuple. `(inputs, query_y)` or `(inputs, query_y, query_mask)`.
        path: Path. The PNG file to write.
        n_episodes: int. How many episodes of the meta-batch to show. Defaults to 3.
    """
    inputs, query_y, *_ = meta_batch
    predicted = np.asarray(learner(inputs, training=False)).argmax(axis=-1)
    inputs = {name: np.asarray(value) for name, value in inputs.items()}
    query_y = np.asarray(query_y)
    is_query = inputs.get("query_mask", np.ones(query_y.shape)) > 0
    rows = []
    for t in range(min(n_episodes, len(query_y))):
        for label in np.unique(inputs["support_y"][t]):
            rows.append((t, label))
    columns = 11
    figure = _empty_figure(0.8 * columns + 1, 0.8 * len(rows) + 0.5)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for (t, label), row in zip(rows, axes, strict=True):
        for axis in row:
            axis.axis("off")
        _show(row[0], inputs["support_x"][t][inputs["support_y"][t] == label][0], "black")
        row[0].text(
            -0.25,
            0.5,
            f"task {t + 1}\nclass {label}",
            transform=row[0].transAxes,
            ha="right",
            va="center",
            fontsize=7,
        )
        queries = np.flatnonzero((query_y[t] == label) & is_query[t])[: columns - 1]
        for axis, query in zip(row[1:], queries, strict=False):
            right = predicted[t, query] == label
            _show(axis, inputs["query_x"][t, query], GOOD if right else BAD)
            if not right:
                axis.set_title(f"→ {predicted[t, query]}", fontsize=7, color=BAD, pad=1)
    figure.suptitle(
        "First column: a support image of the class. Others: its queries. Green: recognised; "
        "red → n: mistaken for class n.",
        fontsize=9,
    )
    _write(figure, path)


def regression_fits(
    learners: Mapping[str, MetaLearner], meta_batch: Any, path: Path, n_tasks: int = 3
) -> None:
    """Draws the functions that learners fit to tasks with one input, and the true queries.

    Args:
        learners: dict. Learners by name.
        meta_batch: tuple. `(inputs, query_y)` or `(inputs, query_y, query_mask)` of a
            `TaskDistribution`.
        path: Path. The PNG file to write.
        n_tasks: int. How many tasks of the meta-batch to show. Defaults to 3.
    """
    inputs, query_y, *_ = meta_batch
    inputs = {name: np.asarray(value) for name, value in inputs.items()}
    n_tasks = min(n_tasks, len(query_y))
    figure, axes = _figure(n_tasks)
    low, high = inputs["query_x"].min(), inputs["query_x"].max()
    grid = np.tile(np.linspace(low, high, 200, dtype=np.float32)[None, :, None], (n_tasks, 1, 1))
    support = {name: v[:n_tasks] for name, v in inputs.items() if name.startswith("support_")}
    # Padding is at the end.
    n_support = inputs.get("support_mask", np.ones(inputs["support_x"].shape[:2])).sum(axis=1)
    n_query = inputs.get("query_mask", np.ones(inputs["query_x"].shape[:2])).sum(axis=1)
    for t, axis in enumerate(axes):
        order = np.argsort(inputs["query_x"][t, : int(n_query[t]), 0])
        axis.plot(
            inputs["query_x"][t, order, 0],
            np.asarray(query_y)[t, order, 0],
            "x",
            color="grey",
            label="queries (truth)",
        )
        points = slice(int(n_support[t]))
        axis.plot(
            support["support_x"][t, points, 0],
            support["support_y"][t, points, 0],
            "^k",
            label="support",
        )
        axis.set(xlabel="x", ylabel="y")
        axis.grid(alpha=0.3)
    for name, learner in learners.items():
        fits = np.asarray(learner({**support, "query_x": grid}, training=False))
        for t, axis in enumerate(axes):
            axis.plot(grid[t, :, 0], fits[t, :, 0], label=name)
    axes[0].legend(fontsize=8)
    _write(figure, path)


def inner_schedules(learners: Mapping[str, MetaLearner], path: Path) -> None:
    """Draws the step size, momentum and weight decay that learners have for each inner step.

    Args:
        learners: dict. Learners by name, built, with the inner rule `"schedule"`.
        path: Path. The PNG file to write.

    Raises:
        ValueError: If a learner has another inner rule.
    """
    for name, learner in learners.items():
        rule = getattr(learner, "inner_rule", None)
        if not isinstance(rule, Schedule):
            raise ValueError(
                f'Only the inner rule "schedule" has schedules to draw; {name} has '
                f"{type(rule).__name__ if rule else 'none'}."
            )
    figure, axes = _figure(3)
    for axis, schedule in zip(axes, ("learning_rate", "momentum", "weight_decay"), strict=True):
        for name, learner in learners.items():
            values = np.asarray(getattr(learner.inner_rule, schedule))
            axis.plot(np.arange(1, len(values) + 1), values, "o-", label=name)
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.set(xlabel="inner step", ylabel=schedule.replace("_", " "))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    _write(figure, path)


def regret_curves(regrets: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws the regret of the best trial so far by trial, a line per method.

    Args:
        regrets: dict. By method, array `[seeds, trials]`. The band is the 95 % confidence interval
            of the mean over seeds, by the normal distribution.
        path: Path. The PNG file to write.
    """
    from matplotlib.ticker import LogLocator

    figure, (axis,) = _figure(1)
    for name, values in regrets.items():
        values = np.asarray(values, float)
        numbers = np.arange(1, values.shape[1] + 1)
        mean = values.mean(axis=0)
        (line,) = axis.plot(numbers, mean, label=name, linewidth=1.2)
        if len(values) > 1:
            half = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(values))
            low, high = np.maximum(mean - half, mean / 10), mean + half
            axis.fill_between(numbers, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axis.set(xlabel="trials", ylabel="normalised regret", xscale="log", yscale="log")
    axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.3, which="both")
    figure.set_size_inches(8.2, 4.0)
    figure.legend(loc="outside right center", fontsize=8)
    _write(figure, path)


def _show(axis: Any, image: np.ndarray, colour: str) -> None:
    axis.imshow(image.squeeze(), cmap="Greys", vmin=0, vmax=1)
    axis.axis("on")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=2)


def _empty_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _figure(n_axes: int) -> tuple[Figure, list[Any]]:
    figure = _empty_figure(5 * n_axes, 3.6)
    return figure, list(figure.subplots(1, n_axes, squeeze=False)[0])


def _write(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=110)
