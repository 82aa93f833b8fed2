"""Learners trained on one domain and tested on others, on the same encoder and episodes.

python benchmarks/domains/run.py OUTPUT [--data-dir DIR] [--drawings-dir DIR] [--page docs/zoo.md]

Trains each learner on omniglot, glyphs, emoji and icons, and tests it on these and on digits, all
as 28×28 grey images. What was trained and measured is kept in the folder OUTPUT, so a run that was
stopped goes on from there. At the end, the results are written to benchmarks/domains/results.json,
and their tables are printed, or written into a page.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import drawings
import keras
import methods
import numpy as np
import tables
from methods import METHODS, Method
from summary import summary

import tfmeta
from tfmeta.cards import replace_measured
from tfmeta.data import ClassDataset
from tfmeta.files import replacing, write_json

RESULTS = Path(__file__).with_name("results.json")


class Run:
    """What was trained and measured with the same settings, in a folder.

    Args:
        folder: Path. Made if it is missing.
        settings: dict. `steps` (of training, by training), `n_episodes` and `seed`.
        load: function from a name and a split to a data set.
        sources: sequence of str. The domains of training.

    Raises:
        ValueError: If the folder holds a run with other settings.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        load: Callable[[str, str], ClassDataset],
        sources: Sequence[str],
    ) -> None:
        self.folder, self.settings, self.sources = folder, settings, sources
        self.load = functools.cache(load)
        # Methods of one training follow each other.
        self.features = functools.lru_cache(maxsize=1)(self._features)
        file = folder / "settings.json"
        if file.exists() and (other := json.loads(file.read_text(encoding="utf-8"))) != settings:
            raise ValueError(
                f"{folder} must hold a run with the settings {settings}; it has one with {other}. "
                "Name another folder, or delete it."
            )
        write_json(file, settings)

    def trained(self, source: str, training: str | None) -> keras.Model:
        """Returns what a training made of a domain; trains if that was not done yet."""
        if training is None:
            keras.utils.set_random_seed(self.settings["seed"])
            return methods.encoder()
        file = self.folder / f"{source}-{training}.keras"
        if not file.exists():
            steps, data = self.settings["steps"][training], self.load(source, "train")
            say(f"{source}: {training}, {steps} steps")
            model, seconds = methods.train(training, data, steps, self.settings["seed"])
            write_json(file.with_suffix(".json"), {"steps": steps, "cpu_seconds": round(seconds)})
            with replacing(file) as temporary:
                model.save(temporary)
        return keras.models.load_model(file)

    def accuracies(self, source: str, method: Method) -> np.ndarray:
        """Returns the accuracy in each episode `[targets, shots, n_episodes]` of a row."""
        of, file = source if method.training else "untrained", self._file(source, method)
        if not file.exists():
            started = time.monotonic()
            values = self._measured(source, method)
            write_json(file, values.round(6).tolist())
            means = " ".join(f"{100 * mean:.1f}" for mean in values.mean(axis=-1).ravel())
            say(f"{of}: {method.key}: {means} ({time.monotonic() - started:.0f} s)")
        return np.array(json.loads(file.read_text(encoding="utf-8")))

    def is_measured(self, method: Method) -> bool:
        """Returns whether a row was measured after training on each domain."""
        return all(self._file(source, method).exists() for source in self.sources)

    def _file(self, source: str, method: Method) -> Path:
        of = source if method.training else "untrained"
        return self.folder / f"{of}-{method.key}.accuracies.json"

    def _measured(self, source: str, method: Method) -> np.ndarray:
        model = self.trained(source, method.training)
        if method.is_on_features:
            targets = self.features(source, method.training)
        else:
            targets = [self.load(name, "test") for name in drawings.TARGETS]

        def base() -> ClassDataset:
            data = methods.base_classes(self.load(source, "train"))
            return self._embedded(data, model) if method.is_on_features else data

        learner = methods.learner_for(method, model, targets[0].example_shape, base)
        return methods.accuracies(
            learner, targets, self.settings["n_episodes"], self.settings["seed"] + 1
        )

    def _features(self, source: str, training: str | None) -> list[ClassDataset]:
        """Returns the features of the targets' test images."""
        model = self.trained(source, training)
        return [self._embedded(self.load(name, "test"), model) for name in drawings.TARGETS]

    @staticmethod
    def _embedded(data: ClassDataset, model: keras.Model) -> ClassDataset:
        encoder = methods.encoder_of(model)
        return tfmeta.data.embed(data, encoder, batch_size=256, cache=False, verbose=0)

    def trainings(self) -> dict[str, dict[str, Any]]:
        """Returns steps and CPU seconds of each training that was done, by domain and training."""
        return {
            source: {
                training: json.loads(file.read_text(encoding="utf-8"))
                for training in self.settings["steps"]
                if (file := self.folder / f"{source}-{training}.json").exists()
            }
            for source in self.sources
        }


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def results_of(run: Run, methods_of_run: Sequence[Method]) -> dict[str, Any]:
    """Trains and measures what is missing in a run, and returns the results for `tables`."""
    # Rows on features first: they are cheap, and share the features of a training.
    for on_features in (True, False):
        chosen = [each for each in methods_of_run if each.is_on_features == on_features]
        if on_features:
            for source in run.sources:
                for method in chosen:
                    run.accuracies(source, method)
        else:
            for method in chosen:
                for source in run.sources:
                    run.accuracies(source, method)
    values = np.array(
        [[run.accuracies(source, method) for source in run.sources] for method in methods_of_run]
    )
    return {
        "settings": run.settings,
        "training": run.trainings(),
        **summary(values, methods_of_run, run.sources, drawings.TARGETS, methods.SHOTS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="the folder of this run")
    parser.add_argument("--data-dir", help="TensorFlow Datasets' directory")
    parser.add_argument("--drawings-dir", help="the one that has emoji and icons, if another")
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--length", type=float, default=1.0, help="factor of the training steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--sources",
        nargs="+",
        choices=drawings.SOURCES,
        default=drawings.SOURCES,
        help="the domains of training",
    )
    parser.add_argument(
        "--finished", action="store_true", help="train nothing, and show the rows that are measured"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON file to write")
    parser.add_argument("--page", type=Path, help="the page to write the tables into")
    options = parser.parse_args()

    tfmeta.configure_threads()
    steps = {name: round(options.length * n) for name, n in methods.STEPS.items()}
    load = functools.partial(
        drawings.load,
        data_dir=options.data_dir,
        drawings_dir=options.drawings_dir or options.data_dir,
    )
    run = Run(
        options.output,
        {"steps": steps, "n_episodes": options.episodes, "seed": options.seed},
        load,
        options.sources,
    )
    rows = [method for method in METHODS if not options.finished or run.is_measured(method)]
    results = results_of(run, rows)
    write_json(options.results, results)
    content = tables.markdown(results)
    if options.page is None:
        print(content)
    else:
        replace_measured(options.page, content, tables.MARKS)


if __name__ == "__main__":
    main()
