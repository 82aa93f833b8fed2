"""The settings of a TensorFlow Serving model server, and the commands that start it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tfmeta.files import write_text
from tfmeta.serving.warmup import MISSING
from tfmeta.versions import locked, versions

SERVER = "tensorflow_model_server"
MODELS, BATCHING = "models.config", "batching_parameters.txt"
GRPC_PORT, REST_PORT = 8500, 8501

# Used only by a server that batches, which the commands below do not ask for: see docs/serving.md.
BATCHING_PARAMETERS = """\
max_batch_size { value: 32 }
batch_timeout_micros { value: 1000 }
num_batch_threads { value: 2 }
max_enqueued_batches { value: 100 }
"""


def write_settings(folder: str | os.PathLike[str]) -> None:
    """Writes the settings of a server of all servables in a folder.

    `models.config` names the servables that are there now, and is replaced each time.
    `batching_parameters.txt` is written only if there is none, so you can edit it.

    Args:
        folder: str or path. The folder that contains the servables' folders.

    Raises:
        ValueError: If the folder contains no servables.
        ImportError: Without the extra `tfmeta[serving]`.
        OSError: If a file cannot be written.

    Example:

    >>> import tempfile, tfmeta
    >>> learner = tfmeta.from_preset("maml_sinusoid")
    >>> folder = Path(tempfile.mkdtemp())
    >>> version = tfmeta.serving.export(learner, folder / "waves")
    >>> tfmeta.serving.write_settings(folder)
    >>> sorted(path.name for path in folder.glob("[!.]*"))
    ['batching_parameters.txt', 'models.config', 'waves']
    """
    try:
        from google.protobuf import text_format
        from tensorflow_serving.config import model_server_config_pb2
    except ImportError as error:
        raise ImportError(MISSING) from error
    folder = Path(folder).expanduser().absolute()
    if not folder.is_dir() or not servables(folder):
        raise ValueError(f"{folder} must be a folder that holds the folders of servables.")
    # Locked, because of two processes at once one might miss a new servable and write last.
    with locked(folder):
        config = model_server_config_pb2.ModelServerConfig()
        for servable in servables(folder):
            config.model_config_list.config.add(
                name=servable.name, base_path=str(servable), model_platform="tensorflow"
            )
        write_text(folder / MODELS, text_format.MessageToString(config))
        if not (folder / BATCHING).exists():
            write_text(folder / BATCHING, BATCHING_PARAMETERS)


def servables(folder: Path) -> list[Path]:
    """Returns the readable folders in a folder that contain versions of a SavedModel."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir()
        and os.access(path, os.R_OK | os.X_OK)
        and any((path / str(version) / "saved_model.pb").is_file() for version in versions(path))
    )


def command(folder: Path, program: str = SERVER) -> list[str]:
    """Returns the command that starts a server of all servables in a folder with settings."""
    return [
        program,
        f"--port={GRPC_PORT}",
        f"--rest_api_port={REST_PORT}",
        f"--model_config_file={folder / MODELS}",
    ]


def docker_command(folder: Path) -> list[str]:
    """Returns the command that starts the same server in TensorFlow Serving's container."""
    return [
        *["docker", "run", "--rm", "-p", f"{GRPC_PORT}:{GRPC_PORT}"],
        *["-p", f"{REST_PORT}:{REST_PORT}", "-v", f"{folder}:{folder}:ro"],
        *["tensorflow/serving:latest", *command(folder)[1:]],
    ]


def find_server() -> str:
    """Returns the path of `tensorflow_model_server`.

    Raises:
        FileNotFoundError: If it is not installed. The message says how to get it.
    """
    program = shutil.which(SERVER)
    if program is None:
        raise FileNotFoundError(
            f"{SERVER} is not installed. Debian and Ubuntu: add the repository of "
            "https://www.tensorflow.org/tfx/serving/setup and `apt install "
            "tensorflow-model-server`; elsewhere use the container tensorflow/serving. It must be "
            "at least as new as the TensorFlow that exported the servables."
        )
    return program
