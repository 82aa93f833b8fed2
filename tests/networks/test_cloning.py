"""Networks are copied within the process whatever they hold; files say what they need to load."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tests.learners_made_small import (
    N_WAY,
    OPTIONS,
    Networks,
    dense_relation_module,
    make_learner,
    most_are_large,
)
from tfmeta.networks import NotCopyableError, clone

L = keras.layers
RNG = np.random.default_rng(0)
X, Y, QUERIES = RNG.normal(size=(6, 4)), np.arange(6) % N_WAY, RNG.normal(size=(5, 4))
HALF = 0.5


# === Nothing of these is registered with Keras ===


class Regularizer(keras.regularizers.Regularizer):
    def __call__(self, weight):
        return 1e-3 * keras.ops.sum(keras.ops.square(weight))

    def get_config(self):
        return {}


class Constraint(keras.constraints.Constraint):
    def __call__(self, weight):
        return keras.ops.clip(weight, -3, 3)


class Initializer(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.random.normal(shape, dtype=dtype, seed=1)


class WithoutConfig(keras.layers.Layer):
    """Its argument is no plain value, and it keeps layers in every way that Python has."""

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        self.first, self.by_name = L.Dense(8), {"second": [L.Dense(8)]}
        self.by_closure = lambda x: self.by_name["second"][0](x)
        self.by_method = self.third
        self.last = self.tied = L.Dense(8)

    def third(self, x):
        return self.last(x)

    def call(self, x):
        return self.tied(self.by_method(self.by_closure(self.activation(self.first(x)))))


class Compiled(keras.layers.Layer):
    """A layer that computes in a `tf.function`."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(8)
        self.compiled = tf.function(self.compute)

    def compute(self, x):
        return self.dense(x)

    def call(self, x):
        return self.compiled(x)


class Subclass(keras.Model):
    def __init__(self, layers):
        super().__init__()
        self.all = layers

    def call(self, x, training=False):
        for layer in self.all:
            x = layer(x, training=training)
        return x


class FunctionalSubclass(keras.Model):
    """A functional model with a `call` of its own, which `keras.models.clone_model` drops."""

    def __init__(self):
        x = keras.Input((4,))
        super().__init__(x, L.Dense(8)(x))

    def call(self, x, training=False):
        return 2 * super().call(x, training=training)


def sequential(*layers, shape=(4,)):
    return keras.Sequential([keras.Input(shape), *layers])


def functional():
    """Shared layers, nested models, operators, merges and constants."""
    x = keras.Input((4,))
    shared, inner = L.Dense(8), sequential(L.Dense(4), L.BatchNormalization())
    hidden = L.Add()([shared(x), shared(inner(x)) * 2.0 + 1.0])
    middle = keras.Model(x, hidden)
    y = keras.Input((4,))
    return keras.Model(y, keras.ops.relu(middle(y)) - middle(inner(y)))


def tied():
    """The kernel of one layer is used by another."""
    dense = L.Dense(8, use_bias=False)

    class Transposed(keras.layers.Layer):
        def call(self, x):
            return x @ tf.transpose(tf.convert_to_tensor(dense.kernel))

    return sequential(dense, Transposed(), L.Dense(8))


def compiled():
    network = sequential(L.Dense(8))
    network.compile("adam", lambda a, b: keras.ops.mean(a - b), metrics=["mse"])
    network.fit(X, np.zeros((6, 8)), verbose=0)
    return network


def cut_out():
    whole = sequential(L.Dense(8, name="cut"), L.Dense(9))
    return keras.Model(whole.inputs, whole.get_layer("cut").output)


def partly_frozen():
    network = sequential(L.Dense(8), L.Dense(8))
    network.layers[0].trainable = False
    return network


NETWORKS = {
    "lambda": lambda: sequential(L.Lambda(lambda t: t * HALF), L.Dense(8)),
    "unregistered": lambda: sequential(
        L.Dense(
            8,
            activation=lambda t: t + keras.ops.sin(t),
            kernel_regularizer=Regularizer(),
            kernel_constraint=Constraint(),
            kernel_initializer=Initializer(),
        )
    ),
    "layer without get_config": lambda: sequential(WithoutConfig(lambda t: tf.tanh(t))),
    "tf.function": lambda: sequential(Compiled()),
    "subclass without get_config": lambda: Subclass([L.Dense(8), L.Dropout(0.1), L.Dense(8)]),
    "subclass of a functional model": FunctionalSubclass,
    "functional": functional,
    "tied": tied,
    "compiled": compiled,
    "cut out": cut_out,
    "partly frozen": partly_frozen,
}


def built(name):
    keras.utils.set_random_seed(0)
    network = NETWORKS[name]()
    network(X)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_a_copy_predicts_the_same_from_weights_of_its_own(name):
    network = built(name)
    before, copy = network(QUERIES).numpy(), clone(network)
    assert type(copy) is type(network)
    np.testing.assert_allclose(copy(QUERIES), before, rtol=1e-5, atol=1e-6)
    pairs = list(zip(network.variables, copy.variables, strict=True))
    assert all((a.path, a.trainable) == (b.path, b.trainable) and a is not b for a, b in pairs)
    assert len(copy.trainable_variables) == len(network.trainable_variables)
    for variable in copy.trainable_variables:
        variable.assign(variable + 1)
    np.testing.assert_array_equal(network(QUERIES), before)
    assert np.abs(copy(QUERIES) - before).max() > 0.1


def test_a_copy_of_a_copy_trains_and_is_saved_as_the_original(tmp_path):
    network = built("partly frozen")
    copy = clone(clone(network))
    copy.compile("sgd", "mse")
    copy.fit(X, np.zeros((6, 8)), verbose=0)
    copy.set_weights(network.get_weights())
    copy.save(tmp_path / "copy.keras")
    loaded = keras.models.load_model(tmp_path / "copy.keras")
    np.testing.assert_allclose(loaded(QUERIES), network(QUERIES), rtol=1e-5, atol=1e-6)


def test_what_is_set_on_a_copy_is_not_set_on_the_original(tmp_path):
    """A list, too, whose name Keras keeps in a list of its own."""
    x = keras.Input((4,))
    learner = tfmeta.MAML(keras.Model(x, L.Dense(N_WAY)(x)), batch_norm="support")
    names = [f"class {i}" for i in range(N_WAY)]
    learner = learner.with_batch_norm("running")
    tfmeta.serving.export(learner.adapt(X, Y, names), tmp_path / "adapted")
    assert "class_names" not in learner.network._tracked
    tfmeta.serving.export(learner, tmp_path / "learner")


def test_a_network_that_cannot_be_copied_is_named():
    class Kept(ValueError):  # No object of it can be made without its constructor.
        pass

    class Keeps(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(3)
            self.kept = Kept()
            self.kept.layer = self.dense

        def call(self, x):
            return self.dense(x)

    network = keras.Sequential([keras.Input((4,)), Keeps()], name="odd")
    with pytest.raises(NotCopyableError, match="'odd'"):
        clone(network)
    learner = tfmeta.MAML(network)
    assert learner.adapt(X, Y).predict(QUERIES, verbose=0).shape == (5, 3)
    with pytest.raises(NotCopyableError, match="tfmeta cannot copy"):
        learner.with_batch_norm("support")


# === Learners ===


def outputs(units, layers=None):
    return sequential(
        WithoutConfig(lambda t: tf.tanh(t)),
        L.Lambda(lambda t: t * HALF),
        L.BatchNormalization(),
        L.Dense(units, kernel_regularizer=Regularizer(), activation=lambda t: t + t**2),
    )


def with_context():
    x, context = keras.Input((4,)), keras.Input((5,))
    hidden = L.Lambda(lambda t: t * HALF)(L.Concatenate()([x, context]))
    return keras.Model([x, context], L.Dense(N_WAY, kernel_regularizer=Regularizer())(hidden))


ODD = Networks(
    lambda: outputs(N_WAY), lambda: outputs(8), with_context, relation_module=dense_relation_module
)


@pytest.mark.parametrize(
    "name", most_are_large(list(OPTIONS), {"anil", "cavia", "prototypical_network", "reptile"})
)
def test_every_learner_of_unregistered_parts_adapts_and_changes_its_mode(name):
    learner = make_learner(name, ODD, batch_norm="transductive")
    other = learner.with_batch_norm("support")
    assert (type(other), other.batch_norm, learner.batch_norm) == (
        type(learner),
        "support",
        "transductive",
    )
    assert not {id(v) for v in other.variables} & {id(v) for v in learner.variables}
    for a, b in zip(learner.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    expected = make_learner(name, ODD, batch_norm="support")
    expected.set_weights(learner.get_weights())
    predicted = other.adapt(X, Y).predict(QUERIES, verbose=0)
    np.testing.assert_allclose(
        predicted, expected.adapt(X, Y).predict(QUERIES, verbose=0), rtol=1e-4, atol=1e-5
    )
    for variable in learner.trainable_variables:
        variable.assign(0 * variable)
    np.testing.assert_array_equal(other.adapt(X, Y).predict(QUERIES, verbose=0), predicted)


@pytest.mark.large
def test_a_compiled_learner_that_has_adapted_changes_its_mode():
    learner = tfmeta.PrototypicalNetwork(outputs(8))
    learner.compile("adam", learner.default_loss(), metrics=["accuracy"])
    episode = {"support_x": X[None], "support_y": Y[None], "query_x": QUERIES[None]}
    learner.fit(episode, Y[None, :5], verbose=0)
    learner.adapt(X, Y)
    other = learner.with_batch_norm("support")
    assert not other.compiled
    other.compile("adam", other.default_loss())
    other.fit(episode, Y[None, :5], verbose=0)
    learner.fit(episode, Y[None, :5], verbose=0)


# === Files ===


def test_saving_says_what_must_be_registered(tmp_path):
    def network():
        dense = L.Dense(N_WAY, kernel_regularizer=Regularizer(), activation=lambda t: t + t**2)
        return sequential(L.BatchNormalization(), dense)

    for model in (tfmeta.MAML(network()), tfmeta.MAML(network()).adapt(X, Y)):
        with pytest.warns(UserWarning, match="where Regularizer, a lambda function can be found"):
            model.save(tmp_path / "model.keras")


def test_saving_of_registered_parts_says_nothing(tmp_path):
    @keras.saving.register_keras_serializable("test_cloning")
    def known(x):
        return x**2

    learner = tfmeta.MAML(
        sequential(L.Dense(8, activation=known, kernel_regularizer="l2"), L.ReLU(), L.Dense(N_WAY))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        learner.save(tmp_path / "model.keras")
        keras.models.load_model(tmp_path / "model.keras")
