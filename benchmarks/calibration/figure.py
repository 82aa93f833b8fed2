"""Draws what run.py measured.

python benchmarks/calibration/figure.py docs/images/calibration.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

NAMES = {
    "maml": "MAML",
    "amortized_maml": "Amortized MAML",
    "exact": "exact posterior",
}
COLOURS = {"maml": "tab:orange", "amortized_maml": "tab:blue", "exact": "black"}


def draw(results: dict, path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    left, right = axes
    for axis in axes:
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        axis.set_aspect("equal")
    for name, label in NAMES.items():
        row = results.get(f"waves_{name}")
        if row is None:
            continue
        levels, shares = zip(*((float(k), v) for k, v in row["coverage"].items()), strict=True)
        left.plot(levels, shares, "o-", markersize=3, color=COLOURS[name], label=label)
    left.set(
        xlabel="probability of the interval",
        ylabel="share of noisy targets within it",
        title="Sinusoids, 5 noisy support points",
    )
    left.legend(loc="upper left")
    for name, label in NAMES.items():
        row = results.get(f"glyphs_{name}")
        if row is None:
            continue
        weights, confidences, hits = (np.array(part) for part in row["bins"])
        used = weights > 50
        right.plot(
            confidences[used] / weights[used],
            hits[used] / weights[used],
            "o-",
            markersize=3,
            color=COLOURS[name],
            label=f"{label}, ECE {100 * row['ece']:.1f} %",
        )
    right.set(xlabel="confidence", ylabel="accuracy", title="Glyphs, 5-way 1-shot")
    right.set(xlim=(0.2, 1), ylim=(0.2, 1))
    right.legend(loc="upper left")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    draw(json.loads(Path(__file__).with_name("results.json").read_text()), Path(sys.argv[1]))
