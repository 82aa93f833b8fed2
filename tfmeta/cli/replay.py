"""`tfmeta replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfmeta.cli.options import DataDir
from tfmeta.cli.startup import start_tensorflow
from tfmeta.cli.tables import print_table


def replay(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    step: Annotated[
        int, typer.Option(help="The step, from 1 through all epochs.", show_default=False)
    ],
    data_dir: DataDir = None,
) -> None:
    """Look at a step of a run again, task by task.

    It begins with the checkpoint before the step, takes the steps between again, and shows the
    loss and the meta-gradient of each task of the step's meta-batch: which of them is not finite,
    and where that began. Nothing is written.
    """
    start_tensorflow()
    from tfmeta import training

    found = training.replay(run, step, data_dir)
    begun = f"with {run / found.begun_from}" if found.begun_from else "anew"
    print(f"Step {step} of {run}, begun {begun} and {found.n_steps} steps before.")
    print_table(
        ["task", "episode", "loss", "norm of meta-gradient", "not finite"],
        [
            [str(r.task), str(e), f"{r.loss:.4g}", f"{r.gradient_norm:.4g}", r.trouble or "–"]
            for r, e in zip(found.reports, found.episodes, strict=True)
        ],
    )
