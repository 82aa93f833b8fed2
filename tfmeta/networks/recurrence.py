"""Recurrent layers inside an episode: without cuDNN, which has no second derivative.

While all tasks are mapped at once, their loops over time are unrolled: TensorFlow cannot vectorise
the gradient of a loop.
"""

from __future__ import annotations

from typing import Any

import keras

from tfmeta import keras_internals, keras_layers
from tfmeta.networks.episode import current_episode
from tfmeta.task_mapping import is_vectorizing

# Longer loops are not unrolled, for their graphs would take minutes to trace.
MOST_UNROLLED = 64


def prepare_recurrence(network: keras.layers.Layer) -> None:
    """Gives each recurrent layer of a network the episodic loop, once."""
    for layer in keras_internals.layers_of(network):
        if isinstance(layer, keras.layers.RNN):
            keras_layers.replace_recurrence(layer, _episodic_recurrence)


def _episodic_recurrence(layer: keras.layers.RNN) -> Any:
    """Makes a layer's loop over time; where its weights do not adapt, it is Keras's own."""

    def loop(sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        steps = sequences.shape[1]
        if is_vectorizing() and steps is not None and steps <= MOST_UNROLLED:
            return keras_layers.unrolled_recurrence(layer, sequences, initial_state, mask, training)
        episode = current_episode()
        use_cudnn = getattr(layer, "use_cudnn", False)
        own = episode is None or not episode.adapts or use_cudnn is False
        compute = keras_layers.own_recurrence if own else keras_layers.plain_recurrence
        return compute(layer, sequences, initial_state, mask, training)

    return loop
