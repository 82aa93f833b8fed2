"""A Relation Network that regresses, beside kernel smoothers on its features and on raw x.

python benchmarks/relation_regression/run.py RUN [--episodes 1000]

The Nadaraya-Watson smoother weighs the support targets by exp(-||f - f_i||^2 / (2 h^2)). Its
bandwidth h is the best of a grid on validation tasks. RUN is a run folder or a preset of a
Relation Network on sinusoids or lines.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tfmeta
from tfmeta import training

BANDWIDTHS = np.geomspace(0.03, 10, 24)


def smoothed(support: np.ndarray, targets: np.ndarray, queries: np.ndarray, h: float) -> np.ndarray:
    """The Nadaraya-Watson estimate `[T, Q, d]` from features `[T, S, f]` and `[T, Q, f]`."""
    squares = ((queries[:, :, None] - support[:, None]) ** 2).sum(axis=-1)
    logits = -squares / (2 * h**2)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ targets


def tasks(
    name: str, n_shot: int, n_tasks: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tasks of one size as arrays."""
    data = tfmeta.data.load(name)
    batch = data.episodes(n_shot=n_shot, n_query=100, meta_batch_size=n_tasks, seed=seed)
    inputs, query_y = next(iter(batch))
    return {k: v.numpy().astype("float64") for k, v in inputs.items()}, query_y.numpy()


def errors(
    features: Callable[[np.ndarray], np.ndarray],
    inputs: dict[str, np.ndarray],
    query_y: np.ndarray,
    h: float,
) -> np.ndarray:
    """The mean squared error of each task `[T]`."""
    support, queries = (features(inputs[k]) for k in ("support_x", "query_x"))
    values = smoothed(support, inputs["support_y"], queries, h)
    return ((values - query_y) ** 2).mean(axis=(1, 2))


def row(name: str, values: np.ndarray) -> str:
    """A line of the table: the mean, and its 95 % confidence interval."""
    return (
        f"| {name} | {values.mean():.4f} ± {1.96 * values.std(ddof=1) / len(values) ** 0.5:.4f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder of a Relation Network")
    parser.add_argument("--episodes", type=int, default=1000)
    options = parser.parse_args()
    learner = training.load_learner(options.run)
    data = training.about(options.run).recipe["data"]["name"]

    def learned(x: np.ndarray) -> np.ndarray:
        flat = x.reshape(-1, x.shape[-1]).astype("float32")
        f = learner.encoder.predict(flat, batch_size=4096, verbose=0).astype("float64")
        return f.reshape(*x.shape[:2], -1)

    print("| 10-shot | MSE |\n| --- | --- |")
    validation, test = (tasks(data, 10, options.episodes, s) for s in (1_000_000, 2_000_000))
    for name, features in (("raw x", lambda x: x), ("the learned features", learned)):
        scale = features(validation[0]["support_x"]).std(axis=(0, 1)).max()
        h = min(scale * BANDWIDTHS, key=lambda h: errors(features, *validation, h).mean())
        values = errors(features, *test, h)
        print(row(f"kernel smoother on {name}, h = {h:.3g}", values), flush=True)
    predicted = learner.predict(
        {k: v.astype("float32") for k, v in test[0].items()}, batch_size=100, verbose=0
    )
    print(row("Relation Network", ((predicted - test[1]) ** 2).mean(axis=(1, 2))))


if __name__ == "__main__":
    main()
