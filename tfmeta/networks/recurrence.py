"""LSTM and GRU layers inside an episode: without cuDNN, which has no second derivative."""

from __future__ import annotations

from typing import Any

import keras

from tfmeta import keras_internals, keras_layers
from tfmeta.networks.episode import current_episode


def prepare_recurrence(network: keras.Model) -> None:
    """Gives each of a network's stock LSTM and GRU layers the episodic loop, once."""
    for layer in keras_internals.layers_of(network):
        if isinstance(layer, keras.layers.LSTM | keras.layers.GRU):
            keras_layers.replace_recurrence(layer, _episodic_recurrence)


def _episodic_recurrence(layer: keras.layers.RNN) -> Any:
    """Makes a layer's loop over time; where its weights do not adapt, it is Keras's own."""

    def loop(sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        episode = current_episode()
        own = episode is None or not episode.adapts or layer.use_cudnn is False
        compute = keras_layers.own_recurrence if own else keras_layers.plain_recurrence
        return compute(layer, sequences, initial_state, mask, training)

    return loop
