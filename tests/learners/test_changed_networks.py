"""Networks whose layers are frozen, thawed or replaced after a learner was made of them."""

import keras
import numpy as np
import pytest
from learners_made_small import (
    DENSE,
    N_WAY,
    dense_network,
    make_learner,
    most_are_large,
    plain_network,
)

import tfmeta
from tfmeta.learners.structure import Structure

RNG = np.random.default_rng(0)
ALL = sorted(tfmeta.learners.BY_NAME)
# They have meta-parameters for each weight.
BY_WEIGHT = {"amortized_maml", "meta_sgd", "maml_plus_plus"}
SAID = "frozen, thawed or replaced"


def tasks(n_tasks=3):
    x, queries = (RNG.normal(size=(n_tasks, n, 4)).astype("float32") for n in (6, 9))
    labels = np.tile([0, 1, 2, 0, 1, 2], (n_tasks, 1))
    inputs = {"support_x": x, "support_y": labels, "query_x": queries}
    return inputs, np.tile(np.arange(9) % N_WAY, (n_tasks, 1))


def made(name):
    learner = make_learner(name, DENSE)
    learner.build({"support_x": (None, None, 4)})
    return learner


def first_layer(learner):
    return next(layer for layer in network_of(learner).layers if layer.weights)


def network_of(learner):
    return learner.encoder if learner.takes == "encoder" else learner.network


def compiled(learner, rate=0.1):
    learner.compile(keras.optimizers.SGD(rate), learner.default_loss())
    return learner


# === Frozen ===


@pytest.mark.parametrize("is_compiled", [pytest.param(False, marks=pytest.mark.large), True])
@pytest.mark.parametrize(
    "name", most_are_large(ALL, {"anil", "maml", "maml_plus_plus", "prototypical_network"})
)
def test_a_layer_that_is_frozen_later_is_not_trained_or_the_learner_says_so(name, is_compiled):
    """Also without compiling again; and the weights of frozen layers keep every bit."""
    learner = made(name)
    if is_compiled:
        compiled(learner)
        learner.make_train_function()
    dense = first_layer(learner)
    dense.trainable = False
    if not is_compiled:
        compiled(learner)
    if name in BY_WEIGHT:
        with pytest.raises(ValueError, match=SAID):
            learner.train_on_batch(*tasks())
        return
    before = learner.get_weights()
    learner.train_on_batch(*tasks())
    frozen = {id(v) for v in dense.weights}
    moved = [
        (id(v) in frozen, bool((old != new).any()))
        for v, old, new in zip(learner.weights, before, learner.get_weights(), strict=True)
    ]
    assert (True, True) not in moved
    assert (False, True) in moved


@pytest.mark.parametrize("name", most_are_large(ALL, {"maml", "matching_network", "meta_sgd"}))
def test_a_learner_frozen_later_adapts_as_one_that_was_made_of_the_frozen_network(name, tmp_path):
    """After it had adapted already; also after saving, and in another mode of batch norm."""
    keras.utils.set_random_seed(0)
    later = made(name)
    (inputs, _), task = tasks(1), 0
    x, y, queries = (inputs[k][task] for k in ("support_x", "support_y", "query_x"))
    later.adapt(x, y)
    first_layer(later).trainable = False
    if name in BY_WEIGHT:
        for use in (
            lambda: later.adapt(x, y),
            lambda: later.save(tmp_path / "learner.keras"),
            lambda: later.with_batch_norm("support").adapt(x, y),
        ):
            with pytest.raises(ValueError, match=SAID):
                use()
        return
    config = later.get_config()
    first = type(later).from_config(config)
    first.set_weights(later.get_weights())
    expected = first.adapt(x, y).predict(queries, verbose=0)
    np.testing.assert_allclose(later.adapt(x, y).predict(queries, verbose=0), expected, rtol=1e-5)
    later.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    np.testing.assert_allclose(loaded.adapt(x, y).predict(queries, verbose=0), expected, rtol=1e-5)
    support = later.with_batch_norm("support")
    assert not first_layer(support).trainable


@pytest.mark.parametrize("name", ["maml", "prototypical_network", "relation_network"])
def test_a_task_learned_before_layers_were_frozen_says_so(name):
    learner = made(name)
    inputs, _ = tasks(1)
    adapted = learner.adapt(inputs["support_x"][0], inputs["support_y"][0])
    first_layer(learner).trainable = False
    with pytest.raises(ValueError, match=SAID):
        adapted(inputs["query_x"][0])
    first_layer(learner).trainable = True
    assert np.isfinite(adapted(inputs["query_x"][0])).all()


@pytest.mark.parametrize("name", ["maml", "meta_sgd", "maml_plus_plus", "meta_lstm", "reptile"])
def test_a_network_without_trainable_weights_is_refused_at_once(name):
    with pytest.raises(ValueError, match=r"no trainable weights.*layers are frozen"):
        tfmeta.learners.get(name)(frozen())


def frozen():
    network = dense_network()
    network.build((None, 4))
    network.trainable = False
    return network


def test_a_network_of_which_only_batch_norm_is_trainable_is_refused():
    network = dense_network()
    network.build((None, 4))
    for layer in network.layers:
        layer.trainable = isinstance(layer, keras.layers.BatchNormalization)
    with pytest.raises(ValueError, match="only batch norm is trainable"):
        tfmeta.MAML(network)


@pytest.mark.parametrize(
    "name", [pytest.param("prototypical_network", marks=pytest.mark.large), "matching_network"]
)
def test_a_frozen_encoder_compares_but_does_not_train(name):
    encoder = DENSE.encoder()
    encoder.trainable = False
    learner = compiled(tfmeta.learners.get(name)(encoder))
    inputs, query_y = tasks(2)
    adapted = learner.adapt(inputs["support_x"][0], inputs["support_y"][0])
    np.testing.assert_allclose(adapted(inputs["query_x"][0]), learner(inputs)[0], atol=1e-5)
    assert np.isfinite(learner.test_on_batch(inputs, query_y))
    with pytest.raises(ValueError, match="no trainable weights, so there is nothing to meta-train"):
        learner.train_on_batch(inputs, query_y)


def test_a_frozen_body_under_a_head_that_adapts_is_legitimate():
    encoder = DENSE.encoder()
    encoder.trainable = False
    learner = compiled(tfmeta.ANIL(encoder, N_WAY, inner_learning_rate=0.1))
    before = encoder.get_weights()
    learner.train_on_batch(*tasks())
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["maml", "meta_sgd", "maml_plus_plus"])
def test_a_layer_that_is_frozen_before_the_network_is_built_does_not_adapt(name):
    network = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(N_WAY)])
    learner = tfmeta.learners.get(name)(network, inner_steps=1)
    network.layers[0].trainable = False
    inputs, _ = tasks(1)
    adapted = learner.adapt(inputs["support_x"][0], inputs["support_y"][0])
    moved = [
        (a != b).any() for a, b in zip(network.get_weights(), adapted.get_weights(), strict=True)
    ]
    assert moved == [False, False, True, True]


@keras.saving.register_keras_serializable("test_changed_networks")
class TwoLayers(keras.Model):
    """Tells its configuration, as Keras has it, without which of its layers are frozen."""

    def __init__(self, n_layers=2, **kwargs):
        super().__init__(**kwargs)
        self.n_layers = n_layers
        self.dense = [keras.layers.Dense(N_WAY) for _ in range(n_layers)]

    def call(self, x):
        for layer in self.dense:
            x = layer(x)
        return x

    def get_config(self):
        return {"n_layers": self.n_layers}


@pytest.mark.parametrize("is_inner", [True, False])
@pytest.mark.parametrize("name", ["maml", "meta_sgd", "prototypical_network"])
def test_the_file_of_a_partly_frozen_subclass_keeps_what_is_frozen(name, is_inner, tmp_path):
    network = TwoLayers()
    network.dense[0].trainable = False
    if is_inner:
        network = keras.Sequential([keras.Input((4,)), network])
    learner = tfmeta.learners.get(name)(network)
    inputs, _ = tasks(1)
    task = inputs["support_x"][0], inputs["support_y"][0]
    expected = learner.adapt(*task).predict(inputs["query_x"][0], verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    same = [v.trainable for v in learner.variables] == [v.trainable for v in loaded.variables]
    assert same and len(loaded.trainable_variables) < len(loaded.variables)
    given = loaded.adapt(*task).predict(inputs["query_x"][0], verbose=0)
    np.testing.assert_array_equal(given, expected)


def test_a_partly_frozen_network_that_comes_back_with_other_layers_is_refused():
    network = TwoLayers()
    network.dense[0].trainable = False
    config = tfmeta.MAML(network).get_config()
    config["network"]["config"]["n_layers"] = 3
    with pytest.raises(ValueError, match=r"frozen.*had 3 layers then, and has 4"):
        tfmeta.MAML.from_config(config)


# === Thawed, and replaced ===


def test_a_layer_that_is_thawed_after_compile_asks_for_another_optimizer():
    network = plain_network(N_WAY)
    network.layers[0].trainable = False
    learner = compiled(tfmeta.MAML(network))
    learner.train_on_batch(*tasks())
    network.layers[0].trainable = True
    with pytest.raises(ValueError, match=r"thawed \(trainable=True\).*compile again"):
        learner.train_on_batch(*tasks())
    before = network.get_weights()[0]
    compiled(learner).train_on_batch(*tasks())
    assert (network.get_weights()[0] != before).any()


def test_another_last_layer_is_what_a_learner_has_from_then_on():
    network = plain_network(N_WAY)
    learner = tfmeta.MAML(network, inner_learning_rate=0.1)
    inputs, _ = tasks(1)
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    learner.adapt(x, y)
    network.pop()
    network.add(keras.layers.Dense(N_WAY + 2))
    adapted = learner.adapt(x, y)
    assert adapted(x).shape == (6, N_WAY + 2)
    again = tfmeta.MAML(network, inner_learning_rate=0.1).adapt(x, y)
    np.testing.assert_allclose(adapted(x), again(x), rtol=1e-5)


def test_new_values_of_weights_count_at_once():
    network = plain_network(N_WAY)
    learner = tfmeta.MAML(network, inner_learning_rate=0.1)
    inputs, _ = tasks(1)
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    before = learner.adapt(x, y)(x).numpy()
    network.set_weights([2 * w + 1 for w in network.get_weights()])
    after = learner.adapt(x, y)(x).numpy()
    np.testing.assert_allclose(
        after, tfmeta.MAML(network, inner_learning_rate=0.1).adapt(x, y)(x), rtol=1e-5
    )
    assert np.abs(after - before).max() > 1e-2


# === Subclassed networks, whose configuration does not keep what is frozen ===


class Square(keras.Model):
    """Two layers of the same shapes, which must not be exchanged."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.last = keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(4)

    def call(self, x):
        return self.last(self.first(x))


def test_the_copy_of_a_subclass_has_the_values_of_frozen_layers_in_their_place():
    network = Square()
    network(np.ones((1, 4), "float32"))
    network.first.trainable = False
    learner = tfmeta.MAML(network, inner_learning_rate=0.1)
    inputs, _ = tasks(1)
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    expected = learner({name: values[:1] for name, values in inputs.items()})[0]
    np.testing.assert_allclose(learner.adapt(x, y)(inputs["query_x"][0]), expected, atol=1e-6)


def test_a_structure_differs_by_layers_variables_and_what_is_frozen():
    network = plain_network()
    before = Structure(network)
    network.set_weights([w + 1 for w in network.get_weights()])
    assert Structure(network) == before
    network.layers[0].kernel.trainable = False
    assert Structure(network) != before
    network.layers[0].kernel.trainable = True
    assert Structure(network) == before
    network.add(keras.layers.ReLU())
    assert Structure(network) != before
