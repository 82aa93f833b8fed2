"""Servables for TensorFlow Serving: learners that adapt within a request, and adapted models."""

from tfmeta.serving.exporting import export
from tfmeta.serving.gate import ServableError, check

__all__ = ["ServableError", "check", "export"]
