"""How far a served learner's answers are from those of the model in memory.

python benchmarks/serving/agreement.py

Exports every learner of the family (Conv4-64, 5 inner steps) and asks the servable in a process
that does not import TensorFlow, for several numbers of tasks, support examples and queries. Prints
a table in Markdown of the largest differences, in logits (a Relation Network: in scores).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "serving"))

from c_api_worker import Worker

import tfmeta
from tfmeta import backbones
from tfmeta.serving.exporting import OUTPUTS

N_WAY, SHAPE = 5, (28, 28, 1)
SIZES = [(1, 5, 1), (4, 5, 15), (2, 25, 75)]


def network() -> keras.Model:
    return backbones.conv4(N_WAY, SHAPE)


def encoder() -> keras.Model:
    return backbones.conv4(None, SHAPE)


LEARNERS: dict[str, Callable[[], tfmeta.MetaLearner]] = {
    "MAML": lambda: tfmeta.MAML(network(), 0.1, 5, batch_norm="support"),
    "MAML++": lambda: tfmeta.MAMLPlusPlus(network(), 0.1, 5, batch_norm="support"),
    "Meta-SGD": lambda: tfmeta.MetaSGD(network(), 0.1, 5, batch_norm="support"),
    "Meta-LSTM": lambda: tfmeta.MetaLSTM(network(), inner_steps=5, batch_norm="support"),
    "Reptile": lambda: tfmeta.Reptile(network(), inner_steps=5, batch_norm="support"),
    "ANIL": lambda: tfmeta.ANIL(encoder(), N_WAY, 0.1, 5, batch_norm="support"),
    "CAVIA": lambda: tfmeta.CAVIA(backbones.film_conv4(N_WAY, SHAPE), 0.1, 5, batch_norm="support"),
    "Prototypical Network": lambda: tfmeta.PrototypicalNetwork(encoder(), batch_norm="support"),
    "Matching Network": lambda: tfmeta.MatchingNetwork(encoder(), batch_norm="support"),
    "Relation Network": lambda: tfmeta.RelationNetwork(
        backbones.relation_encoder(SHAPE), batch_norm="support"
    ),
}


def main() -> None:
    print(
        "| learner | " + " | ".join(f"T={t}, S={s}, Q={q}" for t, s, q in SIZES) + " | of up to |"
    )
    print("| --- " * (len(SIZES) + 2) + "|")
    rng = np.random.default_rng(0)
    for name, make in LEARNERS.items():
        learner, cells, largest = make(), [], 0.0
        with (
            tempfile.TemporaryDirectory() as folder,
            Worker(tfmeta.serving.export(learner, Path(folder, "servable"))) as servable,
        ):
            for n_tasks, n_support, n_query in SIZES:
                inputs = {
                    "support_x": rng.random((n_tasks, n_support, *SHAPE), "float32"),
                    "support_y": np.tile(np.arange(n_support) % N_WAY, (n_tasks, 1)),
                    "support_mask": np.ones((n_tasks, n_support), "float32"),
                    "query_x": rng.random((n_tasks, n_query, *SHAPE), "float32"),
                }
                expected = np.asarray(learner(inputs, training=False))
                answer = servable.run("adapt_and_predict", inputs)[OUTPUTS[learner.output_kind]]
                cells.append(f"{np.abs(answer - expected).max():.1e}")
                largest = max(largest, float(np.abs(expected).max()))
        print(f"| {name} | " + " | ".join(cells) + f" | {largest:.2g} |", flush=True)


if __name__ == "__main__":
    main()
