"""MetaGAN beside the same learner without a generator, on Omniglot with a tenth of the labels.

TFDS_DATA_DIR=MY_DATA python benchmarks/metagan/run.py [--seeds 0 1 2] [--runs NAME…] [--figure]

Two of the twenty images of each training character have a label. All runs of a base learner have
the same network, optimizer, episodes and number of steps. `results.json` keeps the accuracy of each
run, and a run that is there is not repeated. `--table` prints what is there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfmeta

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
FIGURE = FOLDER.parent.parent / "docs" / "images" / "metagan.png"

SHAPE = (28, 28, 1)
FILTERS = 16
STEPS = {"maml": 150, "relation_network": 250}
META_BATCH = 4
N_UNLABELLED = 2
TEST_EPISODES, TEST_BATCH = 200, 20
# The generator's networks, small enough for CPUs.
N_CODE, N_NOISE, GENERATOR_FILTERS = 16, 32, 8


def generator() -> dict[str, Any]:
    return {
        "generator": tfmeta.backbones.generator(N_CODE + N_NOISE, SHAPE, GENERATOR_FILTERS),
        "example_encoder": tfmeta.backbones.example_encoder(SHAPE, 2 * N_CODE, GENERATOR_FILTERS),
        "n_code": N_CODE,
        "n_noise": N_NOISE,
    }


MAML = {"inner_steps": 1, "test_inner_steps": 3, "inner_learning_rate": 0.4, "first_order": True}


def maml() -> keras.Model:
    return tfmeta.backbones.conv4(5, SHAPE, FILTERS, "max_pool")


def relation_modules() -> list[keras.Model]:
    encoder = tfmeta.backbones.relation_encoder(SHAPE, FILTERS)
    module = tfmeta.backbones.relation_module(encoder.output_shape[1:], FILTERS)
    return [encoder, module]


# By name: the base learner, what makes the learner, and unlabelled examples per class.
RUNS: dict[str, tuple[str, Callable[[], tfmeta.MetaLearner], int]] = {
    "MAML": ("maml", lambda: tfmeta.MAML(maml(), **MAML), 0),
    "MAML + generator": ("maml", lambda: tfmeta.MetaGANMAML(maml(), **MAML, **generator()), 0),
    "MAML + generator + unlabelled": (
        "maml",
        lambda: tfmeta.MetaGANMAML(maml(), **MAML, **generator()),
        N_UNLABELLED,
    ),
    "MAML + generator + unlabelled, plain inner steps": (
        "maml",
        lambda: tfmeta.MetaGANMAML(maml(), **MAML, **generator(), inner_adversarial_weight=0.0),
        N_UNLABELLED,
    ),
    "Relation Network": (
        "relation_network",
        lambda: tfmeta.RelationNetwork(*relation_modules()),
        0,
    ),
    "Relation Network + generator": (
        "relation_network",
        lambda: tfmeta.MetaGANRelationNetwork(*relation_modules(), **generator()),
        0,
    ),
    "Relation Network + generator + unlabelled": (
        "relation_network",
        lambda: tfmeta.MetaGANRelationNetwork(*relation_modules(), **generator()),
        N_UNLABELLED,
    ),
    "Relation Network + generator + unlabelled, w = 1": (
        "relation_network",
        lambda: tfmeta.MetaGANRelationNetwork(
            *relation_modules(), **generator(), adversarial_weight=1.0
        ),
        N_UNLABELLED,
    ),
}


def episodes(data: Any, n_unlabelled: int, seed: int) -> Any:
    """One support example and one query per class: all that has labels."""
    return data.episodes(
        n_way=5,
        n_shot=1,
        n_query=1,
        meta_batch_size=META_BATCH,
        seed=seed,
        n_unlabelled=n_unlabelled,
        labelled_fraction=0.1,
    )


def accuracies(learner: tfmeta.MetaLearner, test: Any) -> np.ndarray:
    """Returns the accuracy in each test episode, with 15 queries per class."""
    tasks = test.episodes(5, 1, 15, TEST_BATCH, seed=1)
    parts = [
        np.mean(learner.predict_on_batch(inputs).argmax(axis=-1) == query_y.numpy(), axis=1)
        for inputs, query_y in tasks.take(TEST_EPISODES // TEST_BATCH)
    ]
    return np.concatenate(parts)


# By name: a learner, whose step is traced once for all seeds, and its optimizers' first values.
TRACED: dict[str, tuple[tfmeta.MetaLearner, list[Any]]] = {}


def new_learner(name: str, seed: int) -> tfmeta.MetaLearner:
    """Returns a learner with the initial weights of a seed."""
    keras.utils.set_random_seed(seed)
    learner = RUNS[name][1]()
    if name not in TRACED:
        learner.compile(keras.optimizers.Adam(1e-3))
        learner.optimizer.build(learner.outer_variables)
        TRACED[name] = learner, [v.numpy() for v in optimizer_variables(learner)]
        return learner
    traced, values = TRACED[name]
    for variable, value in zip(traced.variables, learner.variables, strict=True):
        variable.assign(value)
    for variable, value in zip(optimizer_variables(traced), values, strict=True):
        variable.assign(value)
    return traced


def optimizer_variables(learner: tfmeta.MetaLearner) -> list[Any]:
    optimizers = [learner.optimizer, getattr(learner, "generator_optimizer", None)]
    return [v for optimizer in optimizers if optimizer for v in optimizer.variables]


def run(name: str, seed: int, train: Any, test: Any, steps: int | None = None) -> Any:
    """Trains a learner; returns it and its row of results."""
    base, _, n_unlabelled = RUNS[name]
    steps = steps or STEPS[base]
    learner = new_learner(name, seed)
    start = time.process_time()
    tasks = episodes(train, n_unlabelled, seed)
    learner.fit(tasks, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
    seconds = time.process_time() - start
    values = accuracies(learner, test)
    ci95 = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return learner, {
        "accuracy": round(100 * float(values.mean()), 2),
        "ci95": round(100 * float(ci95), 2),
        "steps": steps,
        "cpu_seconds": round(seconds),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Returns a table of means over seeds, and the differences from the base learner."""
    lines = [
        "| learner | accuracy by seed, % | mean | minus the first row's, by seed |",
        "|" + " --- |" * 4,
    ]
    base: dict[str, Any] = {}
    for name in RUNS:
        rows = results.get(name)
        if not rows:
            continue
        if "generator" not in name:
            base = rows
        by_seed = ", ".join(f"{row['accuracy']:.1f} ± {row['ci95']:.1f}" for row in rows.values())
        mean = np.mean([row["accuracy"] for row in rows.values()])
        differences = [
            row["accuracy"] - base[seed]["accuracy"] for seed, row in rows.items() if seed in base
        ]
        shown = "" if rows is base else ", ".join(f"{d:+.1f}" for d in differences)
        lines.append(f"| {name} | {by_seed} | {mean:.1f} | {shown} |")
    return "\n".join(lines)


def figure(learner: Any, test: Any) -> None:
    """Draws the support images of three test tasks, and what the generator makes of each."""
    import matplotlib.pyplot as plt

    inputs, _ = next(iter(test.episodes(5, 1, 1, 3, seed=1)))
    rows = []
    for task in range(3):
        support = inputs["support_x"][task]
        rows += [support.numpy(), learner.generate(support, None, 5).numpy()]
    image = np.concatenate([np.concatenate(list(row[..., 0]), axis=1) for row in rows])
    axes = plt.subplots(figsize=(5, 6))[1]
    axes.imshow(1 - image, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks(np.arange(6) * 28 + 14, ["support set", "generated"] * 3)
    for line in (2, 4):
        axes.axhline(28 * line - 0.5, color="C0", linewidth=2)
    plt.savefig(FIGURE, dpi=110, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--steps", type=int, help="a trial, whose results are not kept")
    parser.add_argument("--figure", action="store_true", help="also draw generated images")
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if arguments.table:
        print(table(results))
        return
    tfmeta.configure_threads()
    train, test = (tfmeta.data.load("omniglot", split=split) for split in ("train", "test"))
    for seed in arguments.seeds:
        for name in arguments.runs:
            if str(seed) in results.get(name, {}) and not arguments.steps:
                continue
            learner, row = run(name, seed, train, test, arguments.steps)
            print(name, seed, row, flush=True)
            if arguments.steps:
                continue
            results.setdefault(name, {})[str(seed)] = row
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            if arguments.figure and "generator" in name:
                figure(learner, test)
    print(table(results))


if __name__ == "__main__":
    main()
