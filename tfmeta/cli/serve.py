"""`tfmeta export` and `tfmeta serving check | run | configure | path`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmeta.cli.options import AllowTransductive, BatchNormMode, preset_names
from tfmeta.cli.sources import TASK, is_transductive, locate, open_learner, servable_folder
from tfmeta.cli.startup import start_tensorflow

Servables = Annotated[
    Path,
    typer.Argument(help="The folder that holds the servables' folders.", show_default=False),
]


def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A run folder, a preset, or what `tfmeta adapt` wrote.",
            show_default=False,
            autocompletion=preset_names,
        ),
    ],
    output: Annotated[Path, typer.Option(help="The servable's folder.", show_default=False)],
    keep: Annotated[int, typer.Option(help="The number of versions to keep.")] = 3,
    batch_norm: BatchNormMode = None,
    allow_transductive: AllowTransductive = False,
) -> None:
    """Export a learner or a task for serving.

    What is published has passed the checks of `tfmeta serving check`.
    """
    # Before TensorFlow starts: a mistyped name is told at once.
    found = None if (Path(source) / TASK).is_file() else locate(source)
    start_tensorflow()
    from tfmeta import serving
    from tfmeta.tasks import Task

    about_task: dict[str, Any] = {}
    if found is None:
        if batch_norm:
            raise ValueError(
                "A task keeps the mode of batch norm that it was learned in: give --batch-norm to "
                "`tfmeta adapt`."
            )
        task = Task.load(source)
        model, learner = task.model, getattr(task.model, "learner", None)
        example_shape, image_format = task.example_shape, task.image_format
        about_task = {"class_names": task.class_names, "output_kind": task.output_kind}
        support = task.support or "FOLDER_OR_CSV"
        mended = ["tfmeta", "adapt", task.source, "--support", support, "--output", source]
    else:
        model, about = open_learner(found, batch_norm)
        learner, image_format = model, about.image_format
        example_shape = None if about.example_shape is None else tuple(about.example_shape)
        mended = ["tfmeta", "export", source, "--output", str(output)]
    if learner is not None and is_transductive(learner) and not allow_transductive:
        what = "Adapt" if about_task else "Export"
        raise ValueError(
            f"{source} is transductive: an answer would depend on the other queries of the same "
            f"request. {what} it with `{shlex.join([*mended, '--batch-norm', 'support'])}`, or "
            "give --allow-transductive if each request holds all queries of its task."
        )
    version = serving.export(
        model,
        output,
        **about_task,
        image_format=image_format,
        example_shape=example_shape,
        allow_transductive=allow_transductive,
        keep=keep,
    )
    folder = shlex.quote(str(version.parent.parent))
    print(
        f"Published {version}.\n"
        f"Next: tfmeta serving run {folder}        # or, for a container:\n"
        f"      tfmeta serving configure {folder}"
    )


def check(
    servable: Annotated[
        Path,
        typer.Argument(help="A servable's folder, or that of a version.", show_default=False),
    ],
    allow_transductive: AllowTransductive = False,
) -> None:
    """Check a servable again."""
    start_tensorflow()
    from tfmeta import serving

    for finding in serving.check(servable, allow_transductive):
        print(f"{finding.what}: {finding.result}")


def run(folder: Servables) -> None:
    """Start a server of the servables in a folder.

    The program is tensorflow_model_server.
    """
    start_tensorflow()
    from tfmeta.serving import server, write_settings

    folder = folder.expanduser().absolute()
    # Servables may have come, gone or been moved since the settings were written.
    write_settings(folder)
    program = server.find_server()
    # Windows, where execv would return at once, has no such program.
    os.execv(program, server.command(folder, program))


def configure(folder: Servables) -> None:
    """Write the settings of a server.

    They are for all servables in the folder. The commands that start the server, directly or in
    the official container, are printed.
    """
    start_tensorflow()
    from importlib.metadata import version

    from tfmeta.serving import server, write_settings

    folder = folder.expanduser().absolute()
    write_settings(folder)
    print(
        f"Written to {folder}: {server.MODELS}, {server.BATCHING}. Start a server of TensorFlow "
        f"{version('tensorflow')} or later with one of the following:\n"
    )
    print(" ", shlex.join(server.command(folder)))
    print(" ", shlex.join(server.docker_command(folder)))


def path(
    preset: Annotated[
        str,
        typer.Argument(
            help="The preset: its name or folder.",
            show_default=False,
            autocompletion=preset_names,
        ),
    ],
) -> None:
    """Print the folder of a preset's servable."""
    print(servable_folder(preset))
