"""The modes of batch norm. Nothing is imported, so that a recipe is checked without TensorFlow."""

from __future__ import annotations

from typing import Literal

BatchNorm = Literal["transductive", "support", "running"]
