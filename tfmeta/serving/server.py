"""Settings of a TensorFlow Serving model server, and its start."""

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

# For a server that batches, which is not the default: see docs/serving.md.
BATCHING_PARAMETERS = """\
max_batch_size { value: 32 }
batch_timeout_micros { value: 1000 }
num_batch_threads { value: 2 }
max_enqueued_batches { value: 100 }
"""


def write_settings(folder: Path) -> None:
    """Writes the settings of a server of all servables in a folder.

    `models.config` is written anew; `batching_parameters.txt` stays if there is one.

    Args:
        folder: The folder that holds the servables' folders.

    Raises:
        ImportError: Without the extra `tfmeta[serving]`.
    """
    try:
        from google.protobuf import text_format
        from tensorflow_serving.config import model_server_config_pb2
    except ImportError as error:
        raise ImportError(MISSING) from error
    # Else of two publishers at once, one might miss the other's servable, and write last.
    with locked(folder):
        config = model_server_config_pb2.ModelServerConfig()
        for servable in servables(folder):
            config.model_config_list.config.add(
                name=servable.name, base_path=str(servable.absolute()), model_platform="tensorflow"
            )
        write_text(folder / MODELS, text_format.MessageToString(config))
        if not (folder / BATCHING).exists():
            write_text(folder / BATCHING, BATCHING_PARAMETERS)


def servables(folder: Path) -> list[Path]:
    """The folders in a folder that hold versions of a SavedModel, and may be read."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir()
        and os.access(path, os.R_OK | os.X_OK)
        and any((path / str(version) / "saved_model.pb").is_file() for version in versions(path))
    )


def command(folder: Path, program: str = SERVER) -> list[str]:
    """The command line that starts a server of all servables in a folder."""
    return [
        program,
        f"--port={GRPC_PORT}",
        f"--rest_api_port={REST_PORT}",
        f"--model_config_file={folder / MODELS}",
    ]


def docker_command(folder: Path) -> list[str]:
    """The same in the official container, where the servables lie in the same place."""
    return [
        *["docker", "run", "--rm", "-p", f"{GRPC_PORT}:{GRPC_PORT}"],
        *["-p", f"{REST_PORT}:{REST_PORT}", "-v", f"{folder}:{folder}:ro"],
        *["tensorflow/serving:latest", *command(folder)[1:]],
    ]


def find() -> str:
    """The path of the server's program.

    Raises:
        FileNotFoundError: If it is not installed; the message says how to get it.
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
