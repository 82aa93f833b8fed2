"""How far a served learner's answers are from those of the model in memory.

python benchmarks/serving/agreement.py

Exports every learner of the family (Conv4-64, 5 inner steps) and asks the servable in a process
that does not import TensorFlow, for several numbers of tasks, support examples and queries. Prints
a table in Markdown of the largest differences, in logits (a Relation Network: in scores).

In float32, other kernels round otherwise, and where a rounding moves an activation over a ReLU's
kink, the inner steps enlarge it; float64 shows what is left without rounding.
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
from tfmeta.serving.outputs import OUTPUTS

N_WAY, SHAPE = 5, (28, 28, 1)
SIZES = [(1, 5, 1), (4, 5, 15), (2, 25, 75)]


def network() -> keras.Model:
    return backbones.conv4(N_WAY, SHAPE)


def encoder() -> keras.Model:
    return backbones.conv4(None, SHAPE)


LEARNERS: dict[str, Callable[[], tfmeta.MetaLearner]] = {
    "MAML": lambda: tfmeta.MAML(
        network(), inner_learning_rate=0.1, inner_steps=5, batch_norm="support"
    ),
    "MAML++": lambda: tfmeta.MAMLPlusPlus(
        network(), inner_learning_rate=0.1, inner_steps=5, batch_norm="support"
    ),
    "Meta-SGD": lambda: tfmeta.MetaSGD(
        network(), inner_learning_rate=0.1, inner_steps=5, batch_norm="support"
    ),
    "Meta-LSTM": lambda: tfmeta.MetaLSTM(network(), inner_steps=5, batch_norm="support"),
    "Reptile": lambda: tfmeta.Reptile(network(), inner_steps=5, batch_norm="support"),
    "ANIL": lambda: tfmeta.ANIL(
        encoder(), N_WAY, inner_learning_rate=0.1, inner_steps=5, batch_norm="support"
    ),
    "CAVIA": lambda: tfmeta.CAVIA(
        backbones.film_conv4(N_WAY, SHAPE),
        inner_learning_rate=0.1,
        inner_steps=5,
        batch_norm="support",
    ),
    "Prototypical Network": lambda: tfmeta.PrototypicalNetwork(encoder(), batch_norm="support"),
    "Matching Network": lambda: tfmeta.MatchingNetwork(encoder(), batch_norm="support"),
    "Relation Network": lambda: tfmeta.RelationNetwork(
        backbones.relation_encoder(SHAPE), batch_norm="support"
    ),
}


def main() -> None:
    sizes = " | ".join(f"T={t}, S={s}, Q={q}" for t, s, q in SIZES)
    print(f"| learner | {sizes} | largest answer | in float64, all sizes |")
    print("| --- " * (len(SIZES) + 3) + "|")
    for name, make in LEARNERS.items():
        differences, largest = compared(make, "float32")
        cells = " | ".join(f"{difference:.1e}" for difference in differences)
        exact = max(compared(make, "float64")[0])
        print(f"| {name} | {cells} | {largest:.2g} | {exact:.1e} |", flush=True)


def compared(make: Callable[[], tfmeta.MetaLearner], dtype: str) -> tuple[list[float], float]:
    """The largest differences, for each of the sizes, and the largest answer."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    rng = np.random.default_rng(0)
    learner, differences, largest = make(), [], 0.0
    with (
        tempfile.TemporaryDirectory() as folder,
        Worker(tfmeta.serving.export(learner, Path(folder, "servable"))) as servable,
    ):
        for n_tasks, n_support, n_query in SIZES:
            inputs = {
                "support_x": rng.random((n_tasks, n_support, *SHAPE)).astype(dtype),
                "support_y": np.tile(np.arange(n_support) % N_WAY, (n_tasks, 1)),
                "support_mask": np.ones((n_tasks, n_support), dtype),
                "query_x": rng.random((n_tasks, n_query, *SHAPE)).astype(dtype),
            }
            expected = np.asarray(learner(inputs, training=False))
            answer = servable.run("adapt_and_predict", inputs)[OUTPUTS[learner.output_kind]]
            differences.append(float(np.abs(answer - expected).max()))
            largest = max(largest, float(np.abs(expected).max()))
    return differences, largest


if __name__ == "__main__":
    main()
