"""Draws one_task.png, the picture of the README: `python docs/images/one_task.py`.

It shows the first test episode of the preset `prototypical_network_glyphs`. The characters are
tfmeta's own drawings.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import tfmeta

PICTURE = Path(__file__).with_name("one_task.png")
N_QUERY = 9
GOOD, BAD = "#2a7f3f", "#c0392b"


def draw() -> None:
    """Writes the picture."""
    learner = tfmeta.from_preset("prototypical_network_glyphs").with_batch_norm("support")
    characters = tfmeta.data.load("glyphs", split="test")
    episodes = characters.episodes(n_way=5, n_shot=1, n_query=N_QUERY, meta_batch_size=1, seed=0)
    inputs, query_y = next(iter(episodes))
    support_x, support_y, query_x = (
        inputs[name][0].numpy() for name in ("support_x", "support_y", "query_x")
    )
    query_y = query_y[0].numpy()
    predicted = learner.adapt(support_x, support_y).predict(query_x, verbose=0).argmax(axis=-1)

    figure = Figure(figsize=(8.4, 4.1), dpi=150)
    axes = figure.subplots(
        5,
        N_QUERY + 2,
        gridspec_kw={
            "width_ratios": [1, 0.5, *[1] * N_QUERY],
            "left": 0.02,
            "right": 0.98,
            "top": 0.84,
            "bottom": 0.03,
            "wspace": 0.12,
            "hspace": 0.12,
        },
    )
    for label, row in enumerate(axes):
        show(row[0], support_x[support_y == label][0], "black")
        row[1].axis("off")
        row[1].text(0.5, 0.5, "→", ha="center", va="center", fontsize=16)
        queries = np.flatnonzero(predicted == label)[:N_QUERY]
        for axis in row[2:]:
            axis.axis("off")
        for axis, query in zip(row[2:], queries, strict=False):
            show(axis, query_x[query], GOOD if query_y[query] == label else BAD)
    n_right, n_queries = int(np.sum(predicted == query_y)), len(query_y)
    frames = "" if n_right == n_queries else " (green)"
    texts = {
        axes[0, 0]: "You label one\nof each class.",
        axes[0, 2]: "The learner finds the others. It has never seen these five classes before.\n"
        f"Here, {n_right} of {n_queries} answers are right{frames}.",
    }
    for axis, text in texts.items():
        figure.text(axis.get_position().x0, 0.87, text, fontsize=9.5, linespacing=1.5)
    figure.savefig(PICTURE, metadata={"Software": None})


def show(axis, image: np.ndarray, colour: str) -> None:
    """Shows an image in a frame."""
    axis.axis("on")
    axis.imshow(image[..., 0], cmap="Greys", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=2)


if __name__ == "__main__":
    draw()
