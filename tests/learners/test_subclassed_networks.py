"""Networks that are subclasses of keras.Model: built by shapes alone; the shape of an example."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import HEADS, most_are_large

import tfmeta

RNG = np.random.default_rng(0)
N_WAY = 3


@keras.saving.register_keras_serializable("test_subclassed_networks")
class Network(keras.Model):
    """A `call` and no `build`: it has weights from its first call on, and tells no shape."""

    def __init__(self, units, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.options = {"units": units, "activation": activation}
        self.hidden = keras.layers.Dense(4)
        self.norm = keras.layers.BatchNormalization()
        self.out = keras.layers.Dense(units, activation=activation)

    def call(self, x, training=False):
        x = self.norm(self.hidden(x), training=training)
        # Images of any size have features of one.
        return self.out(x if len(x.shape) == 2 else keras.ops.mean(x, axis=[1, 2]))

    def get_config(self):
        return {**super().get_config(), **self.options}


def head():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(N_WAY)])


SMALL = {"n_code": 2, "n_noise": 3}
# CAVIA's network cannot be subclassed; to build it as the others must do no harm.
LEARNERS = {
    "amortized_maml": lambda: tfmeta.AmortizedMAML(Network(N_WAY), samples=2),
    "anil": lambda: tfmeta.ANIL(Network(5), N_WAY),
    "anil_built_head": lambda: tfmeta.ANIL(Network(5), head()),
    "anil_subclassed_head": lambda: tfmeta.ANIL(Network(5), Network(N_WAY)),
    "cavia": lambda: tfmeta.CAVIA(tfmeta.backbones.mlp(N_WAY, (4,), n_context=2)),
    "maml": lambda: tfmeta.MAML(Network(N_WAY)),
    "maml_support": lambda: tfmeta.MAML(Network(N_WAY), batch_norm="support"),
    "maml_plus_plus": lambda: tfmeta.MAMLPlusPlus(Network(N_WAY), inner_steps=2),
    "matching_network": lambda: tfmeta.MatchingNetwork(Network(5)),
    "matching_network_full_context": lambda: tfmeta.MatchingNetwork(Network(5), full_context=True),
    **{name: lambda name=name: tfmeta.learners.get(name)(Network(5)) for name in HEADS},
    "meta_gan_maml": lambda: tfmeta.MetaGANMAML(Network(N_WAY), **SMALL),
    "meta_gan_relation_network": lambda: tfmeta.MetaGANRelationNetwork(
        Network(5), Network(1, "sigmoid"), **SMALL
    ),
    "meta_lstm": lambda: tfmeta.MetaLSTM(Network(N_WAY), inner_steps=2),
    "meta_sgd": lambda: tfmeta.MetaSGD(Network(N_WAY)),
    "prototypical_network": lambda: tfmeta.PrototypicalNetwork(Network(5)),
    "relation_network": lambda: tfmeta.RelationNetwork(Network(5), Network(1, "sigmoid")),
    "reptile": lambda: tfmeta.Reptile(Network(N_WAY)),
}
# The three tests of all of them, which take long together, share them out in the default tier.
BUILT = {"anil_subclassed_head", "cavia", "maml_support", "meta_sgd", "relation_network"}
TRAINED = {"anil_built_head", "cavia", "maml", "prototypical_network", "reptile"}
CALLED = {"anil", "maml_plus_plus", "matching_network_full_context", "meta_lstm"}
SUBCLASSED = {name: make for name, make in LEARNERS.items() if name != "cavia"}


def tasks(shape=(4,)):
    support_x, query_x = (RNG.normal(size=(2, n, *shape)).astype("float32") for n in (6, 5))
    labels = np.tile(np.arange(6) % N_WAY, (2, 1))
    return {"support_x": support_x, "support_y": labels, "query_x": query_x}


def test_every_learner_is_here():
    learners = {type(make()) for make in LEARNERS.values()}
    assert learners == set(tfmeta.learners.BY_NAME.values())


# === Building ===


@pytest.mark.parametrize("make", most_are_large(LEARNERS, BUILT))
def test_build_makes_all_that_a_graph_of_any_task_needs(make, tmp_path):
    learner, inputs = make(), tasks()
    learner.build({"support_x": (None, None, 4)})
    variables = [id(v) for v in learner.variables]

    def adapt_and_predict(support_x, support_y, query_x):
        return learner.predict_task(learner.adapt_task(support_x, support_y), query_x)

    task = {name: values[0] for name, values in inputs.items()}
    traced = tf.function(adapt_and_predict, autograph=False).get_concrete_function(
        *(tf.TensorSpec([None, *values.shape[1:]], values.dtype) for values in task.values())
    )
    predictions = traced(*map(tf.constant, task.values()))
    assert [id(v) for v in learner.variables] == variables
    np.testing.assert_allclose(predictions, learner(inputs)[0], rtol=1e-4, atol=1e-5)
    assert [id(v) for v in learner.variables] == variables

    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    np.testing.assert_allclose(loaded(inputs), learner(inputs), rtol=1e-5, atol=1e-6)
    assert loaded.example_shape == (4,)


@pytest.mark.parametrize("make", most_are_large(LEARNERS, TRAINED))
def test_a_learner_built_by_a_shape_trains_all_its_weights(make):
    learner = make()
    learner.build({"support_x": (None, None, 4)})
    learner.build({"support_x": (None, None, 4)})
    learner.compile(keras.optimizers.SGD(1.0), learner.default_loss())
    before = [v.numpy() for v in learner.trainable_variables]
    learner.train_on_batch(tasks(), np.tile(np.arange(5) % N_WAY, (2, 1)))
    networks = [getattr(learner, name, None) for name in ("encoder", "network", "relation_module")]
    weights = {id(v) for n in networks if n is not None for v in n.trainable_variables}
    assert len(weights) >= 4
    assert weights <= {id(v) for v in learner.trainable_variables}
    moved = [
        np.any(v.numpy() != old)
        for v, old in zip(learner.trainable_variables, before, strict=True)
        if id(v) in weights and "kernel" in v.name
    ]
    assert all(moved)


# === The shape of an example ===


@pytest.mark.parametrize("make", most_are_large(SUBCLASSED, CALLED))
def test_a_subclassed_network_s_shape_is_that_of_what_came(make):
    inputs = tasks()
    for see in (
        lambda learner: learner.build({"support_x": (None, None, 4)}),
        lambda learner: learner.adapt(inputs["support_x"][0], inputs["support_y"][0]),
        lambda learner: learner(inputs),
    ):
        learner = make()
        assert learner.example_shape is None
        see(learner)
        assert learner.example_shape == (4,)


def test_a_network_called_before_the_learner_has_it_tells_no_shape_until_something_comes():
    for see in ("call", "fit", "adapt"):
        network, inputs = Network(N_WAY), tasks()
        network(inputs["query_x"][0])
        learner = tfmeta.MAML(network)
        assert learner.built
        assert learner.example_shape is None
        if see == "call":
            learner(inputs)
        elif see == "fit":
            learner.compile("sgd", learner.default_loss())
            learner.fit(inputs, np.tile(np.arange(5) % N_WAY, (2, 1)), verbose=0)
        else:
            learner.adapt(inputs["support_x"][0], inputs["support_y"][0])
        assert learner.example_shape == (4,)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: tfmeta.MAML(tfmeta.backbones.linear(N_WAY, (4,))), (4,)),
        (lambda: tfmeta.ANIL(tfmeta.backbones.conv4(None, (16, 16, 3)), N_WAY), (16, 16, 3)),
        (lambda: tfmeta.CAVIA(tfmeta.backbones.mlp(N_WAY, (7,), n_context=2)), (7,)),
        (
            lambda: tfmeta.PrototypicalNetwork(tfmeta.backbones.conv4(None, (16, 16, 1))),
            (16, 16, 1),
        ),
    ],
)
def test_a_functional_network_tells_its_shape_at_once(make, shape):
    assert make().example_shape == shape


def any_size():
    layers = [keras.layers.Conv2D(3, 3), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((None, None, 2)), *layers])


@pytest.mark.parametrize("encoder", [any_size, lambda: Network(5)])
def test_of_images_of_any_size_the_last_tell_the_shape(encoder):
    learner = tfmeta.PrototypicalNetwork(encoder())
    learner.build({"support_x": (None, None, None, None, 2)})
    assert learner.example_shape is None
    for shape in ((6, 7, 2), (5, 5, 2)):
        learner(tasks(shape))
        assert learner.example_shape == shape
    unknown = {name: tf.TensorSpec([2, None, None, None, 2]) for name in ("support_x", "query_x")}
    in_graph = tf.function(learner, autograph=False)
    in_graph.get_concrete_function({**unknown, "support_y": tf.TensorSpec([2, None], tf.int64)})
    assert learner.example_shape == (5, 5, 2)
