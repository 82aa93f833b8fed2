"""`tfmeta adapt` and `tfmeta predict`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tfmeta.cli.command import warn
from tfmeta.cli.options import BatchNormMode, Source
from tfmeta.cli.predictions import Format, write
from tfmeta.cli.sources import is_transductive, locate, open_learner
from tfmeta.cli.startup import start_tensorflow


def adapt(
    source: Source,
    support: Annotated[
        Path,
        typer.Option(
            help="A folder with one sub-folder of images per class; or a CSV file without a "
            "header, one example per line, its last column the label or target.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help="The task folder to write.", show_default=False)],
    batch_norm: BatchNormMode = None,
) -> None:
    """Learn one task from a handful of examples."""
    found = locate(source)
    start_tensorflow()
    from tfmeta.tasks import learn

    learner, about = open_learner(found, batch_norm)
    task = learn(
        learner,
        support,
        example_shape=about.example_shape,
        image_format=about.image_format,
        source=source,
        verbose=sys.stderr.isatty(),
    )
    task.save(output)
    if is_transductive(learner):
        warn(
            "the prediction of a file depends on the other files of the same call, because this "
            "learner normalises them together: adapt with --batch-norm support if it must not."
        )
    classes = "" if task.class_names is None else f" of the classes {', '.join(task.class_names)}"
    print(f"Learned from {task.n_examples} examples{classes}. Written to {output}.")


def predict(
    task: Annotated[
        Path, typer.Argument(help="A folder that `tfmeta adapt` wrote.", show_default=False)
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Images, folders of images, or CSV files.", show_default=False),
    ],
    format_: Annotated[
        Format,
        typer.Option("--format", help="How to print the predictions; only tsv has no header."),
    ] = "tsv",
    top_k: Annotated[
        int, typer.Option(help="Print this many classes per file, the most probable first.")
    ] = 1,
) -> None:
    """Predict with an adapted model.

    If a folder has sub-folders named after classes, the accuracy on them is printed to stderr.
    """
    if top_k < 1:
        raise ValueError(f"--top-k must be at least 1; got {top_k}.")
    start_tensorflow()
    from tfmeta.tasks import Task

    loaded = Task.load(task)
    if top_k > 1 and loaded.class_names is None:
        raise ValueError("--top-k is for classes, but this task's predictions are numbers.")
    names, outputs = loaded.predict(inputs, verbose=sys.stderr.isatty())
    if len(names) == 1 and getattr(loaded.model, "normalises_together", False):
        warn(
            "this one example is normalised by itself, so its prediction says little: predict "
            "several of a task together, or adapt with --batch-norm support."
        )
    write(names, outputs, loaded.class_names, loaded.output_kind, format_, top_k)
    if loaded.class_names is not None:
        labels = labels_from_folders(inputs, names, loaded.class_names)
        known = [i for i, label in enumerate(labels) if label is not None]
        right = sum(loaded.class_names[outputs[i].argmax()] == labels[i] for i in known)
        if known:
            print(
                f"Accuracy {right / len(known):.4f}: {right} of the {len(known)} files in "
                "sub-folders named after classes.",
                file=sys.stderr,
            )


def labels_from_folders(
    inputs: Sequence[Path], files: Sequence[str], class_names: Sequence[str]
) -> list[str | None]:
    """Returns the label of each file that lies in a sub-folder named after its class.

    Args:
        inputs: Sequence of paths. What the user gave: files, and folders that hold the files.
        files: Sequence of str, `[N]`. The files.
        class_names: Sequence of str. The classes.

    Returns:
        `[N]`, None for each other file.

    Example:

    >>> labels_from_folders([Path("new")], ["new/cat/1.png", "new/2.png"], ["cat", "dog"])
    ['cat', None]
    """

    def label(file: Path) -> str | None:
        for folder in inputs:
            if file.is_relative_to(folder):
                parts = file.relative_to(folder).parts
                if len(parts) > 1 and parts[0] in class_names:
                    return parts[0]
        return None

    return [label(Path(file)) for file in files]
