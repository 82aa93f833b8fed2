"""Draws LEO's codes before and after the inner steps.

python benchmarks/leo/latents.py RUN IMAGE.png --data-dir MY_DATA

Five test classes, and many 1-shot tasks of them that differ in the support examples. Each dot is
the code of a class in a task, in the plane of the first two principal components of all codes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import tfmeta
from tfmeta.recipes import Recipe
from tfmeta.training import load_learner

N_WAY, N_TASKS = 5, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("image", type=Path, help="the PNG file to write")
    parser.add_argument("--data-dir", required=True, help="the folder that has embeddings/")
    parser.add_argument("--seed", type=int, default=0, help="which classes and examples")
    arguments = parser.parse_args()

    features = Recipe.load(arguments.run).data.features
    data = tfmeta.data.load(
        "embeddings", features=features, split="test", data_dir=arguments.data_dir
    )
    learner = load_learner(arguments.run)
    rng = np.random.default_rng(arguments.seed)
    classes = rng.choice(len(data), N_WAY, replace=False)
    members = tf.eye(N_WAY, dtype="float64")
    before, after = [], []
    for _ in range(N_TASKS):
        rows = np.array([rng.choice(data.rows[k]) for k in classes])
        support, _ = learner.support_features(data.fetch(tf.constant(rows)), None, False)
        steps = learner.descend(
            tf.cast(support, tf.float64), members, learner.inner_steps, 0, False
        )
        codes = [code.numpy() for code, _ in steps]
        before.append(codes[0])
        after.append(codes[-1])
    both = np.stack([before, after])  # [2, tasks, classes, n_latent]
    flat = both.reshape(-1, both.shape[-1])
    _, sizes, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    plane = (both - flat.mean(axis=0)) @ axes[:2].T
    share = (sizes[:2] ** 2).sum() / (sizes**2).sum()

    figure = Figure(figsize=(9, 4.6), dpi=110)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    titles = ("before the inner steps", f"after {learner.inner_steps} inner steps")
    for panel, points, title in zip(panels, plane, titles, strict=True):
        for k, name in enumerate(np.array(data.class_names)[classes]):
            panel.scatter(*points[:, k].T, s=14, label=name, alpha=0.75, linewidths=0)
        panel.set(title=title, xlabel="first principal component")
    panels[0].set_ylabel("second principal component")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=N_WAY, fontsize=8, frameon=False)
    figure.suptitle(
        f"Codes of five test classes in {N_TASKS} 1-shot tasks ({share:.0%} of their variance)"
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1), w_pad=2.5)
    figure.savefig(arguments.image)

    def distance(codes: np.ndarray) -> float:
        """The mean distance between two classes' codes in a task, in all dimensions."""
        pairs = codes[:, :, None] - codes[:, None]
        return float(np.sqrt((pairs**2).sum(axis=-1)).sum() / (N_TASKS * N_WAY * (N_WAY - 1)))

    def within(codes: np.ndarray) -> float:
        """The root mean squared distance of a class's codes from their mean over the tasks."""
        return float(np.sqrt(codes.var(axis=0).sum(axis=-1).mean()))

    for name, measure in (("between two classes", distance), ("around a class's mean", within)):
        print(f"distance {name}: {measure(both[0]):.2f}, then {measure(both[1]):.2f}")


if __name__ == "__main__":
    main()
