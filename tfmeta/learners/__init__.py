"""The algorithms, one file each, on the contract of `contract.py`."""

from __future__ import annotations

from tfmeta import backend  # noqa: F401  First of all imports: it checks Keras's backend.
from tfmeta.learners.adapted_model import AdaptedModel
from tfmeta.learners.anil import ANIL
from tfmeta.learners.cavia import CAVIA
from tfmeta.learners.maml import MAML
from tfmeta.learners.maml_plus_plus import MAMLPlusPlus
from tfmeta.learners.matching_network import MatchingNetwork
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.learners.meta_lstm import MetaLSTM
from tfmeta.learners.meta_sgd import MetaSGD
from tfmeta.learners.prototypical_network import PrototypicalNetwork
from tfmeta.learners.relation_network import RelationNetwork
from tfmeta.learners.reptile import Reptile
from tfmeta.registry import find

BY_NAME: dict[str, type[MetaLearner]] = {
    "anil": ANIL,
    "cavia": CAVIA,
    "maml": MAML,
    "maml_plus_plus": MAMLPlusPlus,
    "matching_network": MatchingNetwork,
    "meta_lstm": MetaLSTM,
    "meta_sgd": MetaSGD,
    "prototypical_network": PrototypicalNetwork,
    "relation_network": RelationNetwork,
    "reptile": Reptile,
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
    "MAML",
    "AdaptedModel",
    "MAMLPlusPlus",
    "MatchingNetwork",
    "MetaLSTM",
    "MetaLearner",
    "MetaSGD",
    "PrototypicalNetwork",
    "RelationNetwork",
    "Reptile",
    "get",
]
