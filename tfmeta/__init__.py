"""tfmeta: a TensorFlow/Keras model zoo for meta-learning."""

from tfmeta import backbones, data, learners, testing
from tfmeta.evaluation import Evaluation, evaluate
from tfmeta.learners import MAML, MetaLearner
from tfmeta.threads import configure_threads

__version__ = "0.1.0"

__all__ = [
    "MAML",
    "Evaluation",
    "MetaLearner",
    "__version__",
    "backbones",
    "configure_threads",
    "data",
    "evaluate",
    "learners",
    "testing",
]
