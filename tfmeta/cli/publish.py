"""`tfmeta publish`, `card` and `zoo`: turn a run into a preset of the zoo."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from tfmeta.cli.sources import EVALUATION, is_transductive
from tfmeta.cli.startup import start_tensorflow
from tfmeta.modes import BatchNorm


def publish(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    output: Annotated[Path, typer.Option(help="The preset's folder to write.", show_default=False)],
    batch_norm: Annotated[
        BatchNorm | None,
        typer.Option(
            help="The mode of batch norm of the servable; the learner keeps its own. By default "
            "it is the learner's, and `support` if that is `transductive`.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a preset from a run.

    The preset has the run's learner, its evaluation, and a servable.
    """
    start_tensorflow()
    from tfmeta import preset_files, serving, training
    from tfmeta.files import scratch_beside, sync, sync_tree

    if (output / preset_files.PRESET).exists():
        raise ValueError(f"{output} holds a preset already: remove it, or choose another --output.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is not an empty folder: choose another --output.")
    learner, about = training.load_learner(run), training.about(run)
    mode = batch_norm or ("support" if is_transductive(learner) else None)
    served = learner.with_batch_norm(mode) if mode else learner
    target = output.expanduser().absolute()
    # Build in a temporary folder, then rename, so that a preset is never incomplete.
    with scratch_beside(target) as scratch:
        preset = scratch / "preset"
        preset_files.save(learner, preset, about.image_format, about.recipe)
        version = serving.export(
            served,
            # The servable is named after its folder.
            scratch / "servables" / target.name,
            image_format=about.image_format,
            example_shape=about.example_shape,
            allow_transductive=batch_norm == "transductive",
        )
        shutil.copytree(version, preset / preset_files.SERVABLE / version.name)
        if (run / EVALUATION).is_file():
            shutil.copy(run / EVALUATION, preset)
        preset_files.record_files(preset)
        sync_tree(preset)
        if target.exists():
            target.rmdir()
        preset.rename(target)
        sync(target.parent)
    print(f"Written to {output}.")


def card(
    folder: Annotated[
        Path, typer.Argument(help="The model's folder, with its README.md.", show_default=False)
    ],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="The run, then those of other seeds.", show_default=False),
    ] = None,
) -> None:
    """Write results into a model's card."""
    start_tensorflow()
    from tfmeta import cards

    cards.write_card(folder, runs or [])
    print(f"Written to {folder / cards.CARD}.")


def zoo(
    models: Annotated[
        Path, typer.Argument(help="The folder of the models' folders.", show_default=False)
    ],
    page: Annotated[Path, typer.Argument(help="The Markdown file.", show_default=False)],
) -> None:
    """Write the table of presets into a page."""
    start_tensorflow()
    from tfmeta.zoo_table import write_zoo

    write_zoo(models, page)
    print(f"Written to {page}.")
