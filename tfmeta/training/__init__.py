"""Meta-training by a recipe, into a run folder, from which an interrupted run resumes."""

from __future__ import annotations

from tfmeta.callbacks.run_files import BEST, CHECKPOINT, HISTORY, read_history
from tfmeta.training.measuring import measure, weights_sha256
from tfmeta.training.meta_training import train
from tfmeta.training.replaying import replay
from tfmeta.training.run_folder import (
    ADAPTATION_CURVE,
    DETAILS,
    EVALUATION,
    RECIPE,
    about,
    load_learner,
)

__all__ = [
    "ADAPTATION_CURVE",
    "BEST",
    "CHECKPOINT",
    "DETAILS",
    "EVALUATION",
    "HISTORY",
    "RECIPE",
    "about",
    "load_learner",
    "measure",
    "read_history",
    "replay",
    "train",
    "weights_sha256",
]
