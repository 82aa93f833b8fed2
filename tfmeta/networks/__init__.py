"""Turns any Keras model into a pure function that each task calls with its own weights."""

from tfmeta.networks.batch_norm import (
    MODES,
    BatchNorm,
    batch_norm_layers,
    check_batch_norm,
    normalises_together,
    normalization,
    statistics_of,
)
from tfmeta.networks.calling import (
    call_network,
    call_shared_network,
    carry_over,
    output_shape,
    prepare_network,
    values_of,
)
from tfmeta.networks.cloning import NotCopyableError, clone
from tfmeta.networks.constants import constant_products
from tfmeta.networks.copies import (
    copy_with_statistics,
    copy_with_values,
    repeated,
)
from tfmeta.networks.digest import NoDigestError, network_digest
from tfmeta.networks.episode import Normalization
from tfmeta.networks.freezing import freeze_layers, trainable_layers
from tfmeta.networks.interface import (
    built_by_call,
    check_network,
    check_output,
    computes_in,
    shape_of,
)
from tfmeta.networks.layer_losses import add_losses, collecting_losses, sum_of
from tfmeta.networks.pairs import Pairs
from tfmeta.networks.recurrence import prepare_recurrence
from tfmeta.networks.registration import LAMBDA, unregistered, warn_of_unregistered
from tfmeta.networks.side_effects import constrained

__all__ = [
    "LAMBDA",
    "MODES",
    "BatchNorm",
    "NoDigestError",
    "Normalization",
    "NotCopyableError",
    "Pairs",
    "add_losses",
    "batch_norm_layers",
    "built_by_call",
    "call_network",
    "call_shared_network",
    "carry_over",
    "check_batch_norm",
    "check_network",
    "check_output",
    "clone",
    "collecting_losses",
    "computes_in",
    "constant_products",
    "constrained",
    "copy_with_statistics",
    "copy_with_values",
    "freeze_layers",
    "network_digest",
    "normalises_together",
    "normalization",
    "output_shape",
    "prepare_network",
    "prepare_recurrence",
    "repeated",
    "shape_of",
    "statistics_of",
    "sum_of",
    "trainable_layers",
    "unregistered",
    "values_of",
    "warn_of_unregistered",
]
