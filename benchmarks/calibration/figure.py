"""Draws what run.py measured.

python benchmarks/calibration/figure.py docs/images/calibration.png
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

NAMES = {
    "maml": ("MAML", "tab:orange", "o-"),
    "amortized_maml": ("Amortized MAML", "tab:blue", "o-"),
    "exact": ("exact posterior", "black", "--"),
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws four panels: coverage by distance and by level, and twice accuracy by confidence."""
    figure, (left, middle, *both) = plt.subplots(1, 4, figsize=(16, 4), layout="constrained")
    left.axhline(0.95, color="grey", linewidth=0.8, linestyle=":")
    for axis in middle, *both:
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    for name, (label, colour, style) in NAMES.items():
        options = {"color": colour, "markersize": 3, "label": label}
        if row := results.get(f"lines_{name}"):
            left.plot(*zip(*row["by_distance"], strict=True), style, **options)
        if row := results.get(f"waves_{name}"):
            levels, shares = zip(*((float(k), v) for k, v in row["coverage"].items()), strict=True)
            middle.plot(levels, shares, style, **options)
        for axis, what in zip(both, ("digits", "omniglot"), strict=True):
            rows = [
                row for key, row in results.items() if re.fullmatch(rf"{what}_{name}(_\d)?", key)
            ]
            if not rows:
                continue
            weights, confidences, hits = np.sum([row["bins"] for row in rows], axis=0)
            used = weights > 50
            ece = np.mean([row["ece"] for row in rows])
            options["label"] = f"{label}, ECE {100 * ece:.1f} %"
            x, y = confidences[used] / weights[used], hits[used] / weights[used]
            axis.plot(x, y, style, **options)
    left.set(
        xlabel="distance from the support points' mean",
        ylabel="share of targets in their 95 % interval",
        title="Lines, 5 noisy support points",
    )
    middle.set(
        xlabel="probability of the interval",
        ylabel="share of targets in it",
        title="Sinusoids, 5 noisy support points",
    )
    titles = "Pairs of digits, 1 shot", "Omniglot, 5-way 1-shot"
    for axis, title in zip(both, titles, strict=True):
        axis.set(xlabel="confidence", ylabel="accuracy", title=title)
    for axis in left, middle, *both:
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(json.loads(Path(__file__).with_name("results.json").read_text()), Path(sys.argv[1]))
