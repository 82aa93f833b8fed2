"""A network's digest changes with what it computes, and with nothing else."""

import importlib.util
import linecache
import sys

import keras
import numpy as np
import pytest

from tfmeta.networks import NoDigestError, network_digest


def network(units=3, activation="relu", rate=0.5, name=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(units, activation, name=name)(inputs)
    left = keras.layers.Dropout(rate)(hidden)
    return keras.Model(inputs, keras.ops.abs(left) + hidden)


def test_names_seeds_and_freezing_do_not_count():
    digest = network_digest(network())
    other = network(name="another")
    other.compile("adam", "mse")
    other.trainable = False
    other(np.ones((1, 4)), training=True)
    assert network_digest(other) == digest


def test_configuration_weights_and_wiring_count():
    inputs = keras.Input((4,))
    first, second = keras.layers.Dense(4, "tanh"), keras.layers.Dense(4, "tanh")
    hidden = second(first(inputs))
    wired = [keras.Model(inputs, [a, b]) for a in (inputs, hidden) for b in (inputs, hidden)]
    changed = network()
    changed.layers[1].bias.assign([0, 0, 1e-7])
    networks = [network(), network(units=2), network(activation="tanh"), changed, *wired]
    assert len({network_digest(n) for n in networks}) == len(networks)


def test_layers_of_one_kind_are_told_apart():
    inputs = keras.Input((4,))
    a, b = keras.layers.Dense(4), keras.layers.Dense(4)
    x, y = a(inputs), b(inputs)
    subtract = keras.layers.Subtract()
    assert network_digest(keras.Model(inputs, subtract([x, y]))) != network_digest(
        keras.Model(inputs, keras.layers.Subtract()([y, x]))
    )


def test_the_code_of_own_layers_counts(tmp_path, monkeypatch):
    file = tmp_path / "own_layer.py"
    digests = []
    for factor in (2, 3, 2):
        file.write_text(
            "import keras\n\nclass Scaled(keras.layers.Layer):\n"
            f"    def call(self, x):\n        return {factor} * x\n"
        )
        linecache.checkcache()
        spec = importlib.util.spec_from_file_location("own_layer", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "own_layer", module)
        exec(compile(file.read_text(), file, "exec"), vars(module))
        digests.append(network_digest(keras.Sequential([keras.Input((4,)), module.Scaled()])))
    assert digests[0] == digests[2] != digests[1]


def test_code_that_cannot_be_read_is_an_error():
    names = {"keras": keras}
    exec("class Own(keras.layers.Layer):\n    def call(self, x):\n        return x", names)
    model = keras.Sequential([keras.Input((4,)), names["Own"]()])
    with pytest.raises(NoDigestError, match="source code of Own cannot be read"):
        network_digest(model)
