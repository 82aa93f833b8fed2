"""The fast operations give every learner what Keras's own give: predictions and meta-gradients."""

import keras
import numpy as np
import pytest

import tfmeta
from tfmeta import ops
from tfmeta.learners import functional

N_WAY, SHAPE = 3, (22, 22, 2)
MODES = ("transductive", "support", "running")


def conv4(n_way, pool):
    return tfmeta.backbones.conv4(n_way, SHAPE, 4, "max_pool" if pool else "stride")


def film_conv4():
    return tfmeta.backbones.film_conv4(N_WAY, SHAPE, filters=4, n_context=3)


NEW = {
    "maml": lambda mode: tfmeta.MAML(conv4(N_WAY, True), 0.1, 2, batch_norm=mode),
    "meta_sgd": lambda mode: tfmeta.MetaSGD(conv4(N_WAY, False), 0.1, 2, batch_norm=mode),
    "maml_plus_plus": lambda mode: tfmeta.MAMLPlusPlus(
        conv4(N_WAY, False), 0.1, 2, batch_norm=mode
    ),
    "meta_lstm": lambda mode: tfmeta.MetaLSTM(
        conv4(N_WAY, False), 2, hidden_units=4, input_bias=(-1, 0), batch_norm=mode
    ),
    "reptile": lambda mode: tfmeta.Reptile(conv4(N_WAY, False), 0.1, 2, batch_norm=mode),
    "anil": lambda mode: tfmeta.ANIL(conv4(None, False), N_WAY, 0.1, 2, batch_norm=mode),
    "cavia": lambda mode: tfmeta.CAVIA(film_conv4(), 0.1, 2, batch_norm=mode),
    "prototypical_network": lambda mode: tfmeta.PrototypicalNetwork(
        conv4(None, True), batch_norm=mode
    ),
    "matching_network": lambda mode: tfmeta.MatchingNetwork(conv4(None, False), batch_norm=mode),
    "relation_network": lambda mode: tfmeta.RelationNetwork(
        tfmeta.backbones.relation_encoder(SHAPE, 4),
        tfmeta.backbones.relation_module((4, 4, 4), 4),
        batch_norm=mode,
    ),
}


def test_no_learner_is_forgotten():
    assert set(NEW) == set(tfmeta.learners.BY_NAME)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NEW)
@pytest.mark.usefixtures("float64")
def test_fast_operations_change_no_result(name, mode, meta_gradient, monkeypatch):
    keras.utils.set_random_seed(1)
    learner = NEW[name](mode)
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(N_WAY), (2, 2))
    inputs = {
        "support_x": rng.normal(size=(2, 2 * N_WAY, *SHAPE)),
        "support_y": y,
        "query_x": rng.normal(size=(2, 2 * N_WAY, *SHAPE)),
    }
    used = []
    for operation in ("conv2d", "normalize"):
        original = getattr(ops, operation)

        def recorded(*args, original=original, operation=operation):
            used.append(operation)
            return original(*args)

        monkeypatch.setattr(ops, operation, recorded)

    def results():
        gradients = meta_gradient(learner, inputs, y, learner.default_loss())
        return [learner(inputs).numpy(), *gradients]

    fast = results()
    assert "conv2d" in used
    assert "normalize" in used
    used.clear()
    monkeypatch.setattr(functional, "_on_cpu", lambda: False)
    plain = results()
    assert not used
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
