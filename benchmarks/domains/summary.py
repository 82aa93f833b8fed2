"""Means, intervals and ranks of the accuracies in episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from methods import Method
from scipy.stats import rankdata

from tfmeta.report import Estimate, ci95


def summary(
    values: np.ndarray,
    methods: Sequence[Method],
    sources: Sequence[str],
    targets: Sequence[str],
    shots: Sequence[int],
) -> dict[str, Any]:
    """Summarises accuracies, for a JSON file.

    Args:
        values: array `[methods, sources, targets, shots, episodes]`. The same episodes for all
            methods and sources.
        methods: sequence of Method. The rows.
        sources: sequence of str. Domains of training.
        targets: sequence of str. Domains of the test.
        shots: sequence of int.

    Returns:
        `sources`, `targets`, `shots`, and `rows`: for each method its names, and by shot
        `accuracy` (for each target a list over sources), `own` and `other` (the mean over pairs of
        the same domain, and of two domains), `rank_own` and `rank_other` (the mean rank among the
        methods that are inductive as well, or transductive as well), and for a meta-learner
        `gain`: the difference to SimpleShot on its features.
    """
    is_own = np.array([[source == target for target in targets] for source in sources])
    ranks = _ranks(values.mean(axis=-1), [method.is_inductive for method in methods])
    position = {(method.label, method.batch_norm): i for i, method in enumerate(methods)}
    rows = []
    for i, method in enumerate(methods):
        row: dict[str, Any] = {
            "label": method.label,
            "training": method.training,
            "batch_norm": method.batch_norm,
            "is_inductive": method.is_inductive,
            "by_shot": {},
        }
        for k, shot in enumerate(shots):
            mine = values[i, :, :, k]
            row["by_shot"][str(shot)] = entry = {
                "accuracy": {
                    target: [Estimate.of(mine[a, b]).to_dict() for a in range(len(sources))]
                    for b, target in enumerate(targets)
                },
                "own": over_pairs(mine, is_own),
                "other": over_pairs(mine, ~is_own),
                "rank_own": float(ranks[i, :, :, k][is_own].mean()),
                "rank_other": float(ranks[i, :, :, k][~is_own].mean()),
            }
            if method.same_features:
                other = values[position[method.same_features, method.batch_norm], :, :, k]
                entry["gain"] = _gain(mine - other, is_own, targets)
        rows.append(row)
    return {
        "sources": list(sources),
        "targets": list(targets),
        "shots": list(shots),
        "rows": rows,
    }


def over_pairs(values: np.ndarray, chosen: np.ndarray) -> dict[str, float | None]:
    """Returns the mean over pairs of domains, with the 95 % interval over episodes.

    Sources share the episodes of a target, so they are averaged within each episode. Targets have
    episodes of their own, and the squares of their intervals add.

    Args:
        values: array `[sources, targets, episodes]`.
        chosen: bool array `[sources, targets]`. The pairs.

    Example:

    >>> values = np.array([[[0.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 1.0]]])
    >>> over_pairs(values, np.array([[True, False], [True, False]]))
    {'mean': 0.5, 'ci95': 0.0}
    """
    sums = [values[chosen[:, b], b].sum(axis=0) for b in range(values.shape[1])]
    variance = sum(ci95(s) ** 2 for s in sums)
    n_pairs = int(chosen.sum())
    mean = sum(float(s.mean()) for s in sums) / n_pairs
    return Estimate(mean, float(np.sqrt(variance)) / n_pairs).to_dict()


def _gain(differences: np.ndarray, is_own: np.ndarray, targets: Sequence[str]) -> dict[str, Any]:
    estimates = [[Estimate.of(values) for values in of_source] for of_source in differences]
    signs = np.array([[np.sign(e.mean) * (abs(e.mean) > e.ci95) for e in es] for es in estimates])
    return {
        "own": over_pairs(differences, is_own),
        "other": over_pairs(differences, ~is_own),
        # 1: better, beyond the interval of the difference; −1: worse; 0: neither.
        "sign": {target: signs[:, b].astype(int).tolist() for b, target in enumerate(targets)},
    }


def _ranks(means: np.ndarray, is_inductive: Sequence[bool]) -> np.ndarray:
    """Returns ranks `[methods, …]` from 1, the best; ties share the mean of theirs."""
    ranks = np.empty(means.shape)
    for group in (True, False):
        chosen = np.array(is_inductive) == group
        ranks[chosen] = rankdata(-means[chosen], axis=0)
    return ranks
