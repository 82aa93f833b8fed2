"""Meta-training by a recipe, into a run folder, from which an interrupted run resumes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import yaml

from tfmeta import plots
from tfmeta.data import ImageFormat
from tfmeta.evaluation import Evaluation, evaluate
from tfmeta.files import replacing, write_json, write_text
from tfmeta.learners import MetaLearner
from tfmeta.networks import batch_norm_layers
from tfmeta.preset_files import About
from tfmeta.recipes import Recipe
from tfmeta.version import __version__

RECIPE = "recipe.yaml"
DETAILS = "run.json"
BEST = "best.keras"
CHECKPOINT = "checkpoint.keras"
HISTORY = "history.csv"
EVALUATION = "evaluation.json"
ADAPTATION_CURVE = "adaptation_curve.png"

# More than an epoch's draws of a seed.
EPOCH_STRIDE = 1 << 40


class RunFolder(keras.callbacks.Callback):
    """Keeps a run's history, its best learner on validation, and a checkpoint to resume from.

    After each epoch it writes the best learner, then the history, then the checkpoint; each file
    is either the old or the new one. How far a run is, is what the checkpoint's optimizer says:
    wherever it was killed, it goes on from the last checkpoint and writes the same again.

    Args:
        folder: The run folder.
        monitor: The metric of validation.
        higher_is_better: Which way it counts.
        history: Rows of the epochs before.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        higher_is_better: bool,
        history: list[dict[str, float]],
    ) -> None:
        super().__init__()
        self.folder, self.monitor, self.higher_is_better = folder, monitor, higher_is_better
        self.history = history

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()
        # Keras does not save the state of seeds (dropout's): make it one of the epoch.
        for i, variable in enumerate(self.model.non_trainable_variables):
            if variable.name == "seed_generator_state":
                variable.assign([i, epoch * EPOCH_STRIDE])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = {"epoch": epoch + 1, "seconds": time.perf_counter() - self._began, **(logs or {})}
        sign = 1 if self.higher_is_better else -1
        scores = [sign * r[self.monitor] for r in [*self.history, row]]
        # Validation may diverge for an epoch: max() would stick to its NaN.
        best = np.nanmax([-np.inf, *scores[:-1]])
        if not np.isfinite(row["loss"]):
            raise ValueError(
                f"The loss became {row['loss']} in epoch {epoch + 1}. Lower the inner or the outer "
                "learning rate; the last checkpoint is kept."
            )
        if scores[-1] > best or not self.history:
            _save(self.model, self.folder / BEST)
        self.history.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(row))
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.folder / HISTORY, text.getvalue())
        _save(self.model, self.folder / CHECKPOINT)


def train(
    recipe: Recipe, output: str | os.PathLike[str], data_dir: Any = None
) -> list[tuple[dict[str, Any], Evaluation]]:
    """Meta-trains and tests a learner, or resumes where an earlier call was interrupted.

    Args:
        recipe: What to train.
        output: The run folder. Holds in the end: the recipe as run, `run.json` (versions,
            preprocessing, time), `history.csv`, TensorBoard logs, `best.keras` (best on
            validation), `checkpoint.keras` (the last epoch), `evaluation.json`, and pictures.
        data_dir: TensorFlow Datasets' directory.

    Returns:
        The best learner's evaluations on test classes, as `measure` returns them.

    Raises:
        ValueError: If `output` holds the run of another recipe, or the data do not fit.
    """
    folder = Path(output)
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
    # As it is read: YAML has no tuples.
    _check_free(folder, Recipe.from_dict(yaml.safe_load(text)))
    source = recipe.load_data("train", data_dir)
    validation_source = recipe.load_data("validation", data_dir)
    test_source = recipe.load_data("test", data_dir)
    validation = recipe.make_episodes(validation_source, "validation")
    # Too few test classes are better known now.
    for setting in recipe.settings("test"):
        recipe.make_episodes(test_source, "test", setting=setting)

    if (folder / CHECKPOINT).exists():
        learner = keras.models.load_model(folder / CHECKPOINT)
        epoch = int(learner.optimizer.iterations) // recipe.training.steps_per_epoch
        history = read_history(folder)[:epoch]
        print(f"Resuming {folder} after epoch {epoch} of {recipe.training.epochs}.")
    else:
        learner = recipe.make_learner(source.example_shape)
        epoch, history = 0, []
    # Not before all of the recipe was seen to work: one with a mistake claims no folder.
    write_text(folder / RECIPE, text)
    write_json(folder / DETAILS, _details(source))

    meta_batch = _meta_batch_size(recipe.make_episodes(source, "train"))
    start = epoch * recipe.training.steps_per_epoch * meta_batch
    if epoch < recipe.training.epochs:
        learner.fit(
            recipe.make_episodes(source, "train", start=start),
            steps_per_epoch=recipe.training.steps_per_epoch,
            initial_epoch=epoch,
            epochs=recipe.training.epochs,
            validation_data=validation,
            validation_steps=-(-recipe.validation["n_episodes"] // _meta_batch_size(validation)),
            callbacks=[
                RunFolder(
                    folder,
                    monitor="val_loss" if recipe.is_regression else "val_accuracy",
                    higher_is_better=not recipe.is_regression,
                    history=history,
                ),
                keras.callbacks.TensorBoard(folder / "logs", write_graph=False),
            ],
            shuffle=False,
            verbose=1 if os.isatty(1) else 2,
        )
    plots.learning_curve(read_history(folder), folder / "learning_curve.png")

    learner = load_learner(folder)
    results = measure(learner, recipe, test_source, "test")
    seconds = sum(row["seconds"] for row in read_history(folder))
    summary = summarized(results, learner, recipe, test_source, "test", recipe.training.seed)
    details = _details(source)
    write_json(
        folder / EVALUATION,
        {
            **summary,
            "training_seconds": seconds,
            "n_parameters": learner.count_params(),
            **{key: details[key] for key in ("machine", "versions")},
        },
    )
    if "by_inner_step" in summary:
        plots.adaptation_curve(summary, folder / ADAPTATION_CURVE)
    example = next(iter(recipe.make_episodes(test_source, "test")))
    if recipe.is_regression:
        plots.regression_fits({recipe.name: learner}, example, folder / "fits.png")
    elif test_source.image_format is not None:
        plots.episode_sheet(learner, example, folder / "episodes.png")
    return results


def measure(
    learner: MetaLearner,
    recipe: Recipe,
    source: Any,
    split: str,
    n_episodes: int | None = None,
    inner_steps: int | None = None,
    seed: int | None = None,
) -> list[tuple[dict[str, Any], Evaluation]]:
    """Evaluates a learner as its recipe says.

    Args:
        learner: The learner.
        recipe: Its recipe.
        source: The recipe's data of the split.
        split: "train", "validation" or "test".
        n_episodes: Instead of the recipe's.
        inner_steps: Instead of the recipe's.
        seed: Instead of the recipe's.

    Returns:
        The recipe's own setting, `{}`, with its result; and, of the test split, those of the
        evaluation's `also`.

    Raises:
        ValueError: If the learner is another than the recipe's, and tells fewer classes apart.
    """
    outputs = learner.prediction_shape(source.example_shape)
    if outputs is not None and not recipe.is_regression:
        for setting in recipe.settings(split):
            if (n_way := recipe.largest_n_way(split, setting)) > outputs[-1]:
                raise ValueError(
                    f"{recipe.name} is tested on {n_way} classes per episode, but this learner "
                    f"tells {outputs[-1]} apart: choose another recipe, or another learner."
                )
    # Another learner's recipe may count steps where this one has none.
    has_steps = learner.has_inner_steps
    section = recipe.validation if split == "validation" else recipe.evaluation
    results = []
    for setting in recipe.settings(split):
        count = {**section, **setting}["n_episodes"] if n_episodes is None else n_episodes
        steps = {**recipe.evaluation, **setting}.get("inner_steps") if has_steps else None
        text = "".join(f", {name} {value}" for name, value in setting.items())
        print(f"Testing on {count} episodes of the {split} split{text}.")
        result = evaluate(
            learner.with_batch_norm(setting["batch_norm"]) if "batch_norm" in setting else learner,
            recipe.make_episodes(source, split, seed=seed, setting=setting),
            count,
            steps if inner_steps is None else inner_steps,
            verbose=os.isatty(1),
        )
        results.append((setting, result))
    return results


def weights_sha256(learner: MetaLearner) -> str:
    """A digest of a learner's weights, the same in a run and in the preset that was made of it."""
    digest = hashlib.sha256()
    for weight in learner.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def summarized(
    results: list[tuple[dict[str, Any], Evaluation]],
    learner: MetaLearner,
    recipe: Recipe,
    source: Any,
    split: str,
    seed: int,
) -> dict[str, Any]:
    """What `measure` returned, and on what, as plain values.

    Args:
        results: What it returned.
        learner: The learner.
        recipe: The recipe.
        source: The data of the split.
        split: Its name.
        seed: That of the episodes.
    """
    batch_norm = getattr(learner, "batch_norm", None) if batch_norm_layers(learner) else None

    def of_one(setting: dict[str, Any], result: Evaluation) -> dict[str, Any]:
        return {
            **result.to_dict(),
            "episodes": recipe.episode_options(split, setting),
            "batch_norm": setting.get("batch_norm", batch_norm),
        }

    of_all = [of_one(*result) for result in results]
    summary = {
        **of_all[0],
        "protocol": recipe.protocol,
        "data": source.source,
        "split": split,
        "seed": seed,
        "weights_sha256": weights_sha256(learner),
    }
    if hasattr(learner, "test_inner_steps"):
        summary["inner_steps"] = learner.test_inner_steps
    if of_all[1:]:
        summary["also"] = of_all[1:]
    return summary


def load_learner(folder: str | os.PathLike[str]) -> MetaLearner:
    """The best learner of a run folder.

    Raises:
        ValueError: If there is none.
    """
    path = Path(folder) / BEST
    if not path.is_file():
        raise ValueError(
            f"{folder} is no run folder: it has no {BEST}. Make one with "
            f"`tfmeta train RECIPE --output {folder}`."
        )
    return keras.models.load_model(path)


def about(folder: str | os.PathLike[str]) -> About:
    """What a run folder says about its learner."""
    details = json.loads((Path(folder) / DETAILS).read_text(encoding="utf-8"))
    image_format = details["image_format"]
    return About(
        details["example_shape"],
        None if image_format is None else ImageFormat(**image_format),
        Recipe.load(folder).to_dict(),
    )


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's `history.csv`."""
    with (folder / HISTORY).open(encoding="utf-8", newline="") as file:
        return [
            {k: int(v) if k == "epoch" else float(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]


def _check_free(folder: Path, recipe: Recipe) -> None:
    """Raises a ValueError if there is anything but a run of this recipe."""
    if (folder / RECIPE).exists():
        if Recipe.load(folder / RECIPE) != recipe:
            raise ValueError(
                f"{folder} holds the run of another recipe. Choose another --output, or remove it."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} is neither an empty folder nor a run folder. Choose another --output."
        )


def _details(source: Any) -> dict[str, Any]:
    """What is needed to understand a run, and to read images as it did."""
    image_format = source.image_format
    return {
        "example_shape": list(source.example_shape),
        "image_format": None if image_format is None else vars(image_format),
        "versions": {
            "tfmeta": __version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "threads": {
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _meta_batch_size(episodes: tf.data.Dataset) -> int:
    return int(episodes.element_spec[0]["query_x"].shape[0])


def _save(learner: MetaLearner, path: Path) -> None:
    with replacing(path) as temporary:
        learner.save(temporary)
