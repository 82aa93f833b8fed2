"""The accuracy of a trained LEO and of frozen-feature heads, on the same embeddings and episodes.

python benchmarks/leo/run.py RUN --data-dir MY_DATA [--episodes 600] [--n-query 15]

RUN is what `tfmeta train` made of a recipe with data of embeddings. The table has a second
difference: LEO's accuracy minus the head's, episode by episode, with its own interval. The results
are kept in `results.json`, by the recipe's name.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfmeta
from tfmeta.recipes import Recipe
from tfmeta.training import load_learner

META_BATCH = 20
RESULTS = Path(__file__).parent / "results.json"


def accuracies(learner: tfmeta.MetaLearner, episodes: Any, n_batches: int) -> np.ndarray:
    """Returns the accuracy in each episode."""
    predict = keras.Model.predict_on_batch
    parts = [
        np.mean(predict(learner, inputs).argmax(axis=-1) == query_y.numpy(), axis=1)
        for inputs, query_y in episodes.take(n_batches)
    ]
    return np.concatenate(parts)


def interval(values: np.ndarray) -> str:
    ci95 = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return f"{100 * values.mean():.1f} ± {100 * ci95:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--data-dir", required=True, help="the folder that has embeddings/")
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--n-query", type=int, default=15)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    arguments = parser.parse_args()

    tfmeta.configure_threads()
    recipe = Recipe.load(arguments.run)
    train, test = (
        tfmeta.data.load(
            "embeddings",
            features=recipe.data.features,
            split=split,
            data_dir=arguments.data_dir,
        )
        for split in ("train", "test")
    )
    shape = test.example_shape
    centred = tfmeta.SimpleShot(tfmeta.backbones.identity(shape))
    centred.set_feature_mean(train)
    learners = {
        "LEO": load_learner(arguments.run),
        "SimpleShot": centred,
        "RidgeHead": tfmeta.RidgeHead(tfmeta.backbones.identity(shape)),
        "CosinePrototypicalNetwork": tfmeta.CosinePrototypicalNetwork(
            tfmeta.backbones.identity(shape)
        ),
    }
    results: dict[str, dict[str, list[str]]] = {}
    n_batches = -(-arguments.episodes // META_BATCH)
    for n_shot in arguments.shots:
        kept = test.drop_small_classes(n_shot + arguments.n_query)
        episodes = kept.episodes(5, n_shot, arguments.n_query, META_BATCH, seed=1)
        of_leo = None
        print(f"| 5-way {n_shot}-shot | accuracy, % | LEO's minus this |\n| --- | --- | --- |")
        for name, learner in learners.items():
            found = accuracies(learner, episodes, n_batches)
            of_leo = found if of_leo is None else of_leo
            difference = "" if name == "LEO" else interval(of_leo - found)
            cells = [interval(found), difference.replace("-", "−")]
            results.setdefault(f"5-way {n_shot}-shot", {})[name] = cells
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    known[recipe.name] = results
    text = json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False)
    RESULTS.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
