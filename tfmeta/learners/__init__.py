"""The algorithms, one file each, on the contract of `contract.py`."""

from __future__ import annotations

from tfmeta import backend  # noqa: F401  First of all imports: it checks Keras's backend.
from tfmeta.learners.adapted_model import AdaptedModel
from tfmeta.learners.amortized_maml import AmortizedMAML
from tfmeta.learners.anil import ANIL
from tfmeta.learners.baseline_plus_plus import BaselinePlusPlus
from tfmeta.learners.cavia import CAVIA
from tfmeta.learners.cosine_prototypical_network import CosinePrototypicalNetwork
from tfmeta.learners.fine_tuning import FineTuning
from tfmeta.learners.leo import LEO
from tfmeta.learners.logistic_head import LogisticHead
from tfmeta.learners.mahalanobis_head import MahalanobisHead
from tfmeta.learners.maml import MAML
from tfmeta.learners.maml_plus_plus import MAMLPlusPlus
from tfmeta.learners.matching_network import MatchingNetwork
from tfmeta.learners.meta_gan_maml import MetaGANMAML
from tfmeta.learners.meta_gan_relation_network import MetaGANRelationNetwork
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.learners.meta_lstm import MetaLSTM
from tfmeta.learners.meta_sgd import MetaSGD
from tfmeta.learners.prototypical_network import PrototypicalNetwork
from tfmeta.learners.relation_network import RelationNetwork
from tfmeta.learners.reptile import Reptile
from tfmeta.learners.ridge_head import RidgeHead
from tfmeta.learners.simple_shot import SimpleShot
from tfmeta.registry import find

BY_NAME: dict[str, type[MetaLearner]] = {
    "amortized_maml": AmortizedMAML,
    "anil": ANIL,
    "baseline_plus_plus": BaselinePlusPlus,
    "cavia": CAVIA,
    "cosine_prototypical_network": CosinePrototypicalNetwork,
    "fine_tuning": FineTuning,
    "leo": LEO,
    "logistic_head": LogisticHead,
    "mahalanobis_head": MahalanobisHead,
    "maml": MAML,
    "maml_plus_plus": MAMLPlusPlus,
    "matching_network": MatchingNetwork,
    "meta_gan_maml": MetaGANMAML,
    "meta_gan_relation_network": MetaGANRelationNetwork,
    "meta_lstm": MetaLSTM,
    "meta_sgd": MetaSGD,
    "prototypical_network": PrototypicalNetwork,
    "relation_network": RelationNetwork,
    "reptile": Reptile,
    "ridge_head": RidgeHead,
    "simple_shot": SimpleShot,
}


def get(name: str) -> type[MetaLearner]:
    """Returns the class of a learner by its name.

    Args:
        name: str. One of the keys of `BY_NAME`.

    Raises:
        ValueError: If there is none; it names the nearest.

    Example:

    >>> get("meta_lstm").__name__
    'MetaLSTM'
    """
    return find("learner", name, BY_NAME)


__all__ = [
    "ANIL",
    "BY_NAME",
    "CAVIA",
    "LEO",
    "MAML",
    "AdaptedModel",
    "AmortizedMAML",
    "BaselinePlusPlus",
    "CosinePrototypicalNetwork",
    "FineTuning",
    "LogisticHead",
    "MAMLPlusPlus",
    "MahalanobisHead",
    "MatchingNetwork",
    "MetaGANMAML",
    "MetaGANRelationNetwork",
    "MetaLSTM",
    "MetaLearner",
    "MetaSGD",
    "PrototypicalNetwork",
    "RelationNetwork",
    "Reptile",
    "RidgeHead",
    "SimpleShot",
    "get",
]
