"""The command line: tfmeta train | evaluate | adapt | predict | export | serving | list | …."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import tensorflow as tf

from tfmeta import cards, data, plots, presets, serving, training, zoo_table
from tfmeta.data import ImageFormat
from tfmeta.data.sources import IMAGE_SUFFIXES
from tfmeta.files import replacing, write_json
from tfmeta.learners import MetaLearner
from tfmeta.learners.functional import BatchNorm
from tfmeta.recipes import Recipe
from tfmeta.recipes.plan import settings
from tfmeta.report import Report
from tfmeta.serving import server
from tfmeta.threads import configure_threads

MODEL, TASK = "model.keras", "task.json"
DATA_DIR_HELP = "TensorFlow Datasets' directory; also the one that your folder mini_imagenet is in"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        configure_threads()
        options.command(options)
    except KeyboardInterrupt:
        print("tfmeta: interrupted (`tfmeta train` resumes if called again).", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"tfmeta: error: {text}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tfmeta", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, function: Any, text: str, among: Any = commands
    ) -> argparse.ArgumentParser:
        sub = among.add_parser(name, help=text, description=text)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(command=function)
        return sub

    sub = command("train", _train, "Meta-train and test by a recipe; resume if interrupted.")
    sub.add_argument("recipe", help="a folder with a recipe.yaml, or a YAML file")
    sub.add_argument("--output", required=True, help="the run folder to write")
    sub.add_argument("--data-dir", help=DATA_DIR_HELP)
    sub.add_argument("--epochs", type=int, help="instead of the recipe's")
    sub.add_argument("--seed", type=int, help="instead of the recipe's")

    sub = command("evaluate", _evaluate, "Measure a trained learner on episodes.")
    sub.add_argument("source", help="a run folder, or a preset: its name, folder or address")
    sub.add_argument("--recipe", help="test as this recipe or preset is tested, not as its own")
    sub.add_argument("--data-dir", help=DATA_DIR_HELP)
    sub.add_argument("--split", default="test", choices=["train", "validation", "test"])
    sub.add_argument("--n-episodes", type=int, help="instead of the recipe's")
    sub.add_argument("--inner-steps", type=int, help="measure after 0, 1, … this many steps")
    sub.add_argument("--seed", type=int, help="instead of the recipe's")
    sub.add_argument("--output", type=Path, help="a JSON file to write")

    sub = command("adapt", _adapt, "Learn one task from a handful of examples.")
    sub.add_argument("source", help="a run folder, or a preset: its name, folder or address")
    sub.add_argument(
        "--support",
        required=True,
        type=Path,
        help="a folder with one sub-folder of images per class; or a CSV file without a header, "
        "one example per line, its last column the label or target",
    )
    sub.add_argument("--output", required=True, type=Path, help="the folder to write")
    _add_batch_norm(sub)

    sub = command("predict", _predict, "Predict with an adapted model.")
    sub.add_argument("task", type=Path, help="a folder that `tfmeta adapt` wrote")
    sub.add_argument(
        "inputs", nargs="+", type=Path, help="images, folders of images, or one CSV file"
    )

    sub = command("export", _export, "Publish a learner, or a task it has learned, for serving.")
    sub.add_argument("source", help="a run folder, a preset, or what `tfmeta adapt` wrote")
    sub.add_argument("--output", required=True, type=Path, help="the servable's folder")
    sub.add_argument("--keep", type=int, default=3, help="versions to keep (default 3)")
    _add_batch_norm(sub)
    sub.add_argument(
        "--allow-transductive",
        action="store_true",
        help="publish even if an answer depends on the other queries of a request",
    )

    text = "Check servables, or serve them."
    serving_commands = commands.add_parser("serving", help=text, description=text).add_subparsers(
        required=True, metavar="COMMAND"
    )
    sub = command("check", _check, "Check a servable again.", serving_commands)
    sub.add_argument("servable", type=Path, help="a servable's folder, or that of a version")
    sub.add_argument(
        "--allow-transductive",
        action="store_true",
        help="do not ask answers to be independent of the other queries of a request",
    )
    sub = command("run", _run, "Start tensorflow_model_server.", serving_commands)
    sub.add_argument("folder", type=Path, help="the folder that holds the servables' folders")

    sub = command("list", _list, "List the presets by name.")

    sub = command("publish", _publish, "Make a preset of a run: its learner, and the servable.")
    sub.add_argument("run", help="a run folder")
    sub.add_argument("--output", required=True, type=Path, help="the preset's folder to write")

    sub = command("card", _card, "Write what was measured into a model's card.")
    sub.add_argument("folder", type=Path, help="the model's folder, with its README.md")
    sub.add_argument("runs", nargs="*", type=Path, help="the run, then those of other seeds")

    sub = command("zoo", _zoo, "Write the table of all presets into a page.")
    sub.add_argument("models", type=Path, help="the folder of the models' folders")
    sub.add_argument("page", type=Path, help="the Markdown file")

    sub = command("plot", _plot, "Draw what trained regressors fit to the same test tasks.")
    sub.add_argument("runs", nargs="+", type=Path, help="run folders")
    sub.add_argument("--output", required=True, type=Path, help="the PNG file to write")
    return parser


def _add_batch_norm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-norm",
        choices=get_args(BatchNorm),
        help="instead of the mode that the learner was trained in",
    )


# === Commands ===


def _train(options: argparse.Namespace) -> None:
    recipe = Recipe.load(options.recipe)
    changes = {k: v for k in ("epochs", "seed") if (v := getattr(options, k)) is not None}
    recipe = recipe.with_training(**changes)
    _report(training.train(recipe, options.output, options.data_dir))
    pictures = sorted(p.name for p in Path(options.output).glob("*.png"))
    print(f"Written to {options.output}: {training.EVALUATION}, {', '.join(pictures)} …")


def _evaluate(options: argparse.Namespace) -> None:
    learner, about = _opened(options.source)
    recipe = _recipe_of(options.recipe or options.source)
    tests = settings(recipe, options.split, options.data_dir, options.seed)
    example_shape = list(tests[0].source.example_shape)
    if about.example_shape not in (None, example_shape):
        raise ValueError(
            f"{options.source} was trained on examples of shape {about.example_shape}, but those "
            f"of {recipe.name} have the shape {example_shape}."
        )
    report = training.measure(learner, tests, options.n_episodes, options.inner_steps)
    if options.recipe:
        own = None if about.recipe is None else about.recipe["data"]
        report = dataclasses.replace(report, tested_as=recipe.name, trained_on=own)
    _report(report)
    if options.output:
        report.write(options.output)


def _adapt(options: argparse.Namespace) -> None:
    learner, about = _opened(options.source, options.batch_norm)
    is_regression = learner.output_kind == "values"
    class_names: list[str] | None = None
    if options.support.is_dir():
        if about.image_format is None:
            raise ValueError(
                f"{options.source} was not trained on image files: give a CSV file as --support."
            )
        class_names = data.sources.folder(options.support).class_names
        files = [_image_files(options.support / name) for name in class_names]
        support_x = _read_images([f for images in files for f in images], about.image_format)
        support_y = np.repeat(np.arange(len(files)), [len(images) for images in files])
    else:
        table = _read_csv(options.support)
        support_x, support_y = table[:, :-1], table[:, -1]
        support_x = _examples(support_x, about.example_shape, options.support)
        if is_regression:
            support_y = support_y[:, None]
        else:
            labels, support_y = np.unique(support_y, return_inverse=True)
            class_names = [f"{label:.8g}" for label in labels]
    adapted = learner.adapt(support_x, support_y, class_names)
    options.output.mkdir(parents=True, exist_ok=True)
    with replacing(options.output / MODEL) as temporary:
        adapted.save(temporary)
    meaning = {"class_names": class_names, "output_kind": learner.output_kind}
    image_format = None if about.image_format is None else vars(about.image_format)
    examples = {"example_shape": about.example_shape, "image_format": image_format}
    write_json(options.output / TASK, {**meaning, **examples, "source": str(options.source)})
    classes = "" if class_names is None else f" of the classes {', '.join(class_names)}"
    print(f"Learned from {len(support_x)} examples{classes}. Written to {options.output}.")


def _predict(options: argparse.Namespace) -> None:
    if not (options.task / TASK).is_file():
        raise ValueError(f"{options.task} is no task folder: make one with `tfmeta adapt`.")
    task = json.loads((options.task / TASK).read_text(encoding="utf-8"))
    model = keras.models.load_model(options.task / MODEL)
    names: list[str]
    if all(path.suffix.lower() == ".csv" for path in options.inputs):
        tables = [_read_csv(path) for path in options.inputs]
        x = np.concatenate(
            [
                _examples(table, task["example_shape"], path)
                for path, table in zip(options.inputs, tables, strict=True)
            ]
        )
        names = [
            f"{p}:{i + 1}"
            for p, t in zip(options.inputs, tables, strict=True)
            for i in range(len(t))
        ]
    else:
        image_format = _image_format(task)
        if image_format is None:
            raise ValueError(
                f"The learner of {options.task} was not trained on image files: give a CSV file."
            )
        files = [f for path in options.inputs for f in _image_files(path)]
        x, names = _read_images(files, image_format), [str(f) for f in files]
    # One batch: a transductive model normalises all queries together.
    outputs = np.asarray(model.predict(x, batch_size=len(x), verbose=0))
    if task["class_names"] is None:
        for name, output in zip(names, outputs, strict=True):
            print(name, *(f"{value:.6g}" for value in output.ravel()), sep="\t")
        return
    outputs = outputs[:, : len(task["class_names"])]
    if task["output_kind"] == "logits":
        outputs = np.asarray(keras.ops.softmax(outputs))
    for name, p in zip(names, outputs, strict=True):
        print(name, task["class_names"][p.argmax()], f"{p.max():.4f}", sep="\t")


def _export(options: argparse.Namespace) -> None:
    if (Path(options.source) / TASK).is_file():
        if options.batch_norm:
            raise ValueError(
                "A task keeps the mode of batch norm that it was learned in: give --batch-norm to "
                "`tfmeta adapt`."
            )
        model = keras.models.load_model(Path(options.source) / MODEL)
        task = json.loads((Path(options.source) / TASK).read_text(encoding="utf-8"))
        about_task = {name: task[name] for name in ("class_names", "output_kind")}
        example_shape, image_format = task["example_shape"], _image_format(task)
    else:
        model, about = _opened(options.source, options.batch_norm)
        about_task = {}
        example_shape, image_format = about.example_shape, about.image_format
    version = serving.export(
        model,
        options.output,
        **about_task,
        image_format=image_format,
        example_shape=example_shape,
        allow_transductive=options.allow_transductive,
        keep=options.keep,
    )
    folder = version.parent.parent
    print(
        f"Published {version}. Serve all of {folder} with one of the following (a server of "
        f"TensorFlow {tf.__version__} or later):\n"
    )
    print(" ", shlex.join(server.command(folder)))
    print(" ", shlex.join(server.docker_command(folder)))


def _check(options: argparse.Namespace) -> None:
    for finding in serving.check(options.servable, options.allow_transductive):
        print(f"{finding.what}: {finding.result}")


def _run(options: argparse.Namespace) -> None:
    folder = options.folder.expanduser().absolute()
    if not folder.is_dir() or not server.servables(folder):
        raise ValueError(f"{folder} must be a folder that holds the folders of servables.")
    program = server.find()
    server.write_settings(folder)  # One may have come or gone, or all been moved.
    os.execv(program, server.command(folder, program))


def _list(options: argparse.Namespace) -> None:
    for name in presets.list_presets():
        print(name)


def _publish(options: argparse.Namespace) -> None:
    learner, about = training.load_learner(options.run), training.about(options.run)
    presets.save_to_preset(learner, options.output, about.image_format, about.recipe)
    # Elsewhere first: beside a servable, a server's settings are written.
    with tempfile.TemporaryDirectory() as folder:
        version = serving.export(
            learner,
            Path(folder) / options.output.resolve().name,
            image_format=about.image_format,
            example_shape=about.example_shape,
            allow_transductive=True,
        )
        shutil.copytree(version, options.output / presets.SERVABLE / version.name)
    print(f"Written to {options.output}.")


def _card(options: argparse.Namespace) -> None:
    cards.write_card(options.folder, options.runs)
    print(f"Written to {options.folder / cards.CARD}.")


def _zoo(options: argparse.Namespace) -> None:
    zoo_table.write_zoo(options.models, options.page)
    print(f"Written to {options.page}.")


def _plot(options: argparse.Namespace) -> None:
    recipes = [Recipe.load(run) for run in options.runs]
    if not all(recipe.is_regression for recipe in recipes):
        raise ValueError("Only fits of regression tasks are drawn; other pictures are in the runs.")
    tasks = settings(recipes[0], "test")[0].episodes()
    learners = {
        recipe.name: training.load_learner(run)
        for recipe, run in zip(recipes, options.runs, strict=True)
    }
    plots.regression_fits(learners, next(iter(tasks)), options.output)
    print(f"Written to {options.output}.")


# === Inputs and outputs ===


def _opened(source: str, batch_norm: BatchNorm | None = None) -> tuple[MetaLearner, presets.About]:
    """The learner of a run or a preset, in that mode, and what is known about it."""
    about: presets.About
    if (Path(source) / training.BEST).is_file():
        learner, about = training.load_learner(source), training.about(source)
    else:
        folder = presets.find(source)
        learner, about = presets.load(folder), presets.read(folder)
    return (learner.with_batch_norm(batch_norm) if batch_norm else learner), about


def _recipe_of(source: str) -> Recipe:
    """That of a file, a folder, a run or a preset."""
    path = Path(source)
    if path.is_file() or (path / training.RECIPE).is_file():
        return Recipe.load(source)
    if path.suffix in (".yaml", ".yml"):
        raise ValueError(f"No such file: {source}.")
    content = presets.read(presets.find(source)).recipe
    if content is None:
        raise ValueError(f"{source} does not say by which recipe to evaluate it: give --recipe.")
    return Recipe.from_dict(content)


def _report(report: Report) -> None:
    for evaluation in report.evaluations:
        if evaluation.changes:
            print("\n" + ", ".join(f"{k} {v}" for k, v in evaluation.changes.items()) + ":")
        for step, estimate in enumerate(evaluation.steps):
            note = " (before adaptation)" if step == 0 else ""
            print(
                f"after {step:2d} inner steps: {evaluation.metric} "
                f"{estimate.mean:.4f} ± {estimate.ci95:.4f}{note}"
            )
        split = (report.split or "").capitalize()
        print(f"{split}: {evaluation}, ± is the 95 % confidence interval.")


def _read_csv(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"No such file or folder: {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of an empty file.
            table = np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"{path} must be a CSV file of numbers without a header: {error}"
        ) from error
    if not table.size:
        raise ValueError(f"{path} has no examples.")
    if not np.isfinite(table).all():
        raise ValueError(f"The numbers in {path} must be finite.")
    return table


def _examples(table: np.ndarray, shape: list[int] | None, path: Path) -> np.ndarray:
    if shape is None:
        return table
    if table.shape[1] != np.prod(shape):
        raise ValueError(
            f"{path}: an example has {table.shape[1]} numbers, but the learner was trained on "
            f"examples of shape {tuple(shape)}."
        )
    return table.reshape(-1, *shape)


def _image_files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"{path} has no images ({', '.join(IMAGE_SUFFIXES)}).")
        return files
    if not path.is_file():
        raise ValueError(f"No such file or folder: {path}.")
    return [path]


def _image_format(task: dict[str, Any]) -> ImageFormat | None:
    return None if task["image_format"] is None else ImageFormat(**task["image_format"])


def _read_images(files: Sequence[Path], image_format: ImageFormat) -> np.ndarray:
    """Images `[N, height, width, channels]`, float32, as in training."""
    pixels = []
    for file in files:
        try:
            pixels.append(image_format.from_bytes(file.read_bytes()).numpy())
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"{file} is broken, or no image.") from error
    return np.stack(pixels).astype(np.float32) / 255
