"""Servables for TensorFlow Serving: learners that adapt within a request, and adapted models."""

from tfmeta.serving.errors import ServableError
from tfmeta.serving.exporting import export
from tfmeta.serving.gate import check
from tfmeta.serving.locations import servable_of
from tfmeta.serving.preset_servables import renew_servable
from tfmeta.serving.server import write_settings

__all__ = ["ServableError", "check", "export", "renew_servable", "servable_of", "write_settings"]
