"""tfmeta: a TensorFlow/Keras model zoo for meta-learning."""

from tfmeta import backbones, data, inner_rules, learners, serving, testing
from tfmeta.evaluation import Evaluation, evaluate
from tfmeta.learners import (
    ANIL,
    CAVIA,
    MAML,
    MAMLPlusPlus,
    MatchingNetwork,
    MetaLearner,
    MetaLSTM,
    MetaSGD,
    PrototypicalNetwork,
    RelationNetwork,
    Reptile,
)
from tfmeta.presets import from_preset, list_presets
from tfmeta.threads import configure_threads

__version__ = "0.1.0"

__all__ = [
    "ANIL",
    "CAVIA",
    "MAML",
    "Evaluation",
    "MAMLPlusPlus",
    "MatchingNetwork",
    "MetaLSTM",
    "MetaLearner",
    "MetaSGD",
    "PrototypicalNetwork",
    "RelationNetwork",
    "Reptile",
    "__version__",
    "backbones",
    "configure_threads",
    "data",
    "evaluate",
    "from_preset",
    "inner_rules",
    "learners",
    "list_presets",
    "serving",
    "testing",
]
