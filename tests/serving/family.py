"""The learners of the family, small, in modes of batch norm that can be served."""

import tfmeta
from tfmeta import backbones

SHAPE = (14, 14, 1)


def network():
    return backbones.conv4(5, SHAPE, 8)


def encoder():
    return backbones.conv4(None, SHAPE, 8)


LEARNERS = {
    "maml": lambda: tfmeta.MAML(network(), 0.1, 2, batch_norm="support"),
    "maml_plus_plus": lambda: tfmeta.MAMLPlusPlus(network(), 0.1, 2, batch_norm="support"),
    "meta_sgd": lambda: tfmeta.MetaSGD(network(), 0.1, 2, batch_norm="running"),
    "meta_lstm": lambda: tfmeta.MetaLSTM(network(), inner_steps=2, batch_norm="support"),
    "reptile": lambda: tfmeta.Reptile(network(), inner_steps=2, batch_norm="support"),
    "anil": lambda: tfmeta.ANIL(encoder(), 5, 0.1, 2, batch_norm="support"),
    "cavia": lambda: tfmeta.CAVIA(
        backbones.film_conv4(5, (28, 28, 1), 8), 0.1, 2, batch_norm="support"
    ),
    "prototypical_network": lambda: tfmeta.PrototypicalNetwork(encoder(), batch_norm="support"),
    "matching_network": lambda: tfmeta.MatchingNetwork(encoder(), batch_norm="support"),
    "full_context": lambda: tfmeta.MatchingNetwork(encoder(), True, batch_norm="support"),
    "relation_network": lambda: tfmeta.RelationNetwork(
        backbones.relation_encoder((28, 28, 1), 8), batch_norm="support"
    ),
    "maml_regression": lambda: tfmeta.MAML(backbones.mlp(), 0.01, 2, inner_loss="mse"),
}
