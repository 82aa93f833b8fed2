"""Executes the notebooks in place: `python notebooks/execute.py`, after each change to one of them.

Their outputs are committed. The tests execute them, too, with smaller settings.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import papermill

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))


def execute(notebook: Path, folder: str | os.PathLike[str], **parameters: Any) -> Any:
    """Executes a notebook from top to bottom in a new kernel.

    Args:
        notebook: The file, which stays as it is.
        folder: Where the kernel works.
        **parameters: Instead of those in the notebook's cell with the tag `parameters`.

    Returns:
        The notebook with its outputs, and with neither times nor paths in its metadata.

    Raises:
        papermill.PapermillExecutionError: If a cell fails.
    """
    executed = papermill.execute_notebook(
        notebook,
        None,
        parameters,
        kernel_name="python3",
        progress_bar=False,
        coalesce_streams=True,
        cwd=folder,
        # TensorFlow's libraries log while they load, whatever is set: to the terminal, please.
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
    )
    del executed.metadata["papermill"]
    for cell in executed.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
    return executed


if __name__ == "__main__":
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as empty:
            nbformat.write(execute(path, empty), path)
