"""The algorithms, one file each, on the contract of `meta_learner.py`."""

from tfmeta.learners.adapted_model import AdaptedModel
from tfmeta.learners.maml import MAML
from tfmeta.learners.meta_learner import MetaLearner

__all__ = ["MAML", "AdaptedModel", "MetaLearner"]
