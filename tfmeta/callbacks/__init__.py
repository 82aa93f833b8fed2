"""Callbacks for `fit` of a learner."""

from __future__ import annotations

from tfmeta.callbacks.resume import Resume

__all__ = ["Resume"]
