"""Servables for TensorFlow Serving: learners that adapt within a request, and adapted models."""

from tfmeta.serving.exporting import export
from tfmeta.serving.gate import ServableError, check
from tfmeta.serving.server import command as server_command
from tfmeta.serving.server import docker_command
from tfmeta.serving.server import find as find_server

__all__ = [
    "ServableError",
    "check",
    "docker_command",
    "export",
    "find_server",
    "server_command",
]
