"""The fast operations give every learner what Keras's own give: predictions and meta-gradients."""

import concurrent.futures

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import HEADS

import tfmeta
from tfmeta import ops
from tfmeta.networks import Pairs, batch_norm, call_network, convolution, values_of

# So many filters that batch norm normalises the first convolution's kernel, of nine rows.
N_WAY, SHAPE, FILTERS = 3, (22, 22, 1), 36
MODES = ("transductive", "support", "running")


def conv4(n_way, pool):
    return tfmeta.backbones.conv4(n_way, SHAPE, FILTERS, "max_pool" if pool else "stride")


def film_conv4():
    return tfmeta.backbones.film_conv4(N_WAY, SHAPE, filters=FILTERS, n_context=3)


def generator():
    return {
        "generator": tfmeta.backbones.generator(5, SHAPE, FILTERS),
        "example_encoder": tfmeta.backbones.example_encoder(SHAPE, 4, FILTERS),
        "n_code": 2,
        "n_noise": 3,
    }


NEW = {
    "maml": lambda mode: tfmeta.MAML(
        conv4(N_WAY, True), inner_learning_rate=0.1, inner_steps=2, batch_norm=mode
    ),
    "meta_sgd": lambda mode: tfmeta.MetaSGD(
        conv4(N_WAY, False), inner_learning_rate=0.1, inner_steps=2, batch_norm=mode
    ),
    "maml_plus_plus": lambda mode: tfmeta.MAMLPlusPlus(
        conv4(N_WAY, False), inner_learning_rate=0.1, inner_steps=2, batch_norm=mode
    ),
    "meta_lstm": lambda mode: tfmeta.MetaLSTM(
        conv4(N_WAY, False), inner_steps=2, hidden_units=4, input_bias=(-1, 0), batch_norm=mode
    ),
    "reptile": lambda mode: tfmeta.Reptile(
        conv4(N_WAY, False), inner_learning_rate=0.1, inner_steps=2, batch_norm=mode
    ),
    "anil": lambda mode: tfmeta.ANIL(
        conv4(None, False), N_WAY, inner_learning_rate=0.1, inner_steps=2, batch_norm=mode
    ),
    "amortized_maml": lambda mode: tfmeta.AmortizedMAML(
        conv4(N_WAY, False), inner_learning_rate=0.1, inner_steps=2, samples=1, batch_norm=mode
    ),
    "cavia": lambda mode: tfmeta.CAVIA(
        film_conv4(), inner_learning_rate=0.1, inner_steps=2, batch_norm=mode
    ),
    "prototypical_network": lambda mode: tfmeta.PrototypicalNetwork(
        conv4(None, True), batch_norm=mode
    ),
    "matching_network": lambda mode: tfmeta.MatchingNetwork(conv4(None, False), batch_norm=mode),
    **{
        name: lambda mode, name=name: tfmeta.learners.get(name)(conv4(None, True), batch_norm=mode)
        for name in HEADS
    },
    "relation_network": lambda mode: tfmeta.RelationNetwork(
        tfmeta.backbones.relation_encoder(SHAPE, FILTERS),
        tfmeta.backbones.relation_module((4, 4, FILTERS), 4),
        batch_norm=mode,
    ),
    "meta_gan_maml": lambda mode: tfmeta.MetaGANMAML(
        conv4(N_WAY, False), inner_learning_rate=0.1, batch_norm=mode, **generator()
    ),
    "meta_gan_relation_network": lambda mode: tfmeta.MetaGANRelationNetwork(
        tfmeta.backbones.relation_encoder(SHAPE, FILTERS),
        tfmeta.backbones.relation_module((4, 4, FILTERS), 4),
        batch_norm=mode,
        **generator(),
    ),
}


OPERATIONS = ("conv2d", "normalize", "normalized_product")
BY_DEFAULT = {("maml", "transductive"), ("reptile", "running")}


def episodes(dtype="float64"):
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(N_WAY), (2, 2))
    x = rng.normal(size=(2, 2, 2 * N_WAY, *SHAPE)).astype(dtype)
    return {"support_x": x[0], "support_y": y, "query_x": x[1]}, y


def test_no_learner_is_forgotten():
    assert set(NEW) == set(tfmeta.learners.BY_NAME)


@pytest.fixture
def used(monkeypatch):
    """The operations that were used, by name."""
    names = []
    for operation in OPERATIONS:
        original = getattr(ops, operation)

        def recorded(*args, original=original, operation=operation):
            names.append(operation)
            return original(*args)

        monkeypatch.setattr(ops, operation, recorded)
    return names


@pytest.mark.parametrize(
    ("name", "mode", "operations"),
    [
        # Derivatives of both orders, and of the first; the large tier has the others.
        *(
            pytest.param(
                *(name, mode, OPERATIONS),
                marks=[] if (name, mode) in BY_DEFAULT else [pytest.mark.large],
            )
            for name in NEW
            for mode in MODES
        ),
        *(
            pytest.param(
                *(name, "support", OPERATIONS[1:]),
                id=f"patches too large for a cache, {name}",
                marks=[] if name == "matching_network" else [pytest.mark.large],
            )
            for name in ("matching_network", "maml")
        ),
    ],
)
@pytest.mark.usefixtures("float64")
def test_fast_operations_change_no_result(name, mode, operations, used, meta_gradient, monkeypatch):
    keras.utils.set_random_seed(1)
    learner = NEW[name](mode)
    inputs, y = episodes()
    if operations != OPERATIONS:
        monkeypatch.setattr(convolution, "MOST_PATCH_BYTES", 0)

    def results():
        # With the states of seeds, so that the same random numbers are drawn.
        before = [v.numpy() for v in learner.variables]
        gradients = meta_gradient(learner, inputs, y, learner.default_loss())
        learner.train_step((inputs, y))
        averages = [v.numpy() for v in learner.non_trainable_variables]
        for variable, value in zip(learner.variables, before, strict=True):
            variable.assign(value)
        return [learner(inputs).numpy(), *gradients, *averages]

    fast = results()
    assert set(used) == set(operations)
    used.clear()
    for module in (convolution, batch_norm):
        monkeypatch.setattr(module, "only_cpu", lambda: False)
    plain = results()
    assert not used
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "n_normalised"),
    [({}, 2), ({"use_bias": True}, 0), ({"activation": "tanh"}, 0), ({"dtype": "bfloat16"}, 0)],
    ids=["plain", "with a bias", "with an activation", "in half precision"],
)
@pytest.mark.usefixtures("float64")
def test_only_a_plain_convolution_is_normalised_by_its_kernel(
    options, n_normalised, used, monkeypatch
):
    x = keras.Input(SHAPE)
    layer = keras.layers.Conv2D(FILTERS, 3, **{"use_bias": False, **options})
    norm = keras.layers.BatchNormalization()
    # It is called twice, and its result is used elsewhere, too.
    once, again = layer(x), layer(-x)
    y = keras.layers.Add()([norm(once), norm(again), once])
    network = keras.Model(x, keras.layers.GlobalAveragePooling2D()(y))
    network.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in network.weights])
    values = values_of(network)

    def outputs():
        inputs = tf.constant(episodes()[0]["query_x"][0])
        return call_network(network, *values, inputs, normalization="replace")

    fast = tf.nest.flatten(outputs())
    assert used.count("normalized_product") == n_normalised
    for module in (convolution, batch_norm):
        monkeypatch.setattr(module, "only_cpu", lambda: False)
    tolerance = 0.05 if "dtype" in options else 1e-9
    for a, b in zip(fast, tf.nest.flatten(outputs()), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "name",
    [
        "prototypical_network",
        *(pytest.param(n, marks=pytest.mark.large) for n in ("maml", "relation_network")),
    ],
)
def test_the_compiled_float32_step_has_the_float64_gradient(name, float64):
    """Its kernels are others, fused ones."""

    def gradient():
        learner = NEW[name]("transductive")
        inputs, y = episodes(keras.backend.floatx())
        learner(inputs)
        rng = np.random.default_rng(0)
        before = [0.3 * rng.normal(size=w.shape) for w in learner.get_weights()]
        learner.set_weights(before)
        learner.compile(keras.optimizers.SGD(1.0), learner.default_loss())
        learner.train_on_batch(inputs, y)
        return [a - b for a, b in zip(before, learner.get_weights(), strict=True)]

    exact = gradient()
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    size = max(np.linalg.norm(g) for g in exact)
    for a, b in zip(gradient(), exact, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * size)


def test_threads_that_share_layers_do_not_disturb_each_other():
    learner = NEW["maml"]("transductive")
    inputs, _ = episodes("float32")
    models = [learner.adapt(inputs["support_x"][t], inputs["support_y"][t]) for t in range(2)]
    expected = [model(inputs["query_x"][t]) for t, model in enumerate(models)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: models[i % 2](inputs["query_x"][i % 2]), range(40)))
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, expected[i % 2])


def test_an_image_smaller_than_the_kernel_is_kerass_error():
    network = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Conv2D(2, 5),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    learner = tfmeta.PrototypicalNetwork(network)
    with pytest.raises(tf.errors.InvalidArgumentError, match="output size would be negative"):
        learner(
            {
                "support_x": tf.zeros([1, 2, 3, 3, 1]),
                "support_y": tf.constant([[0, 1]]),
                "query_x": tf.zeros([1, 2, 3, 3, 1]),
            }
        )


@pytest.mark.usefixtures("float64")
def test_a_convolution_of_pairs_is_the_sum_of_its_parts():
    rng = np.random.default_rng(0)
    classes, examples = rng.normal(size=(3, 5, 4, 2)), rng.normal(size=(2, 5, 4, 2))
    kernel = rng.normal(size=(3, 3, 4, 6))
    expected = np.stack(
        [
            keras.ops.conv(np.concatenate([c, e], axis=-1)[None], kernel, padding="same")[0]
            for e in examples
            for c in classes
        ]
    )
    pairs = Pairs(tf.constant(classes), tf.constant(examples))

    def convolve(x, kernel):
        return keras.ops.conv(x, kernel, padding="same")

    np.testing.assert_allclose(convolve(pairs.joined(), kernel), expected, rtol=1e-12)
    np.testing.assert_allclose(pairs.convolved(kernel, convolve), expected, atol=1e-12)

    @tf.function(input_signature=2 * [tf.TensorSpec([None, None, None, 2], tf.float64)])
    def of_any_size(classes, examples):
        pairs = Pairs(classes, examples)
        joined, convolved = pairs.joined(), pairs.convolved(kernel, convolve)
        # What a layer must know to be built.
        assert (joined.shape[-1], convolved.shape[-1]) == (4, 6)
        return convolve(joined, kernel), convolved

    for outputs in of_any_size(*pairs):
        np.testing.assert_allclose(outputs, expected, atol=1e-12)


@pytest.mark.parametrize(("mode", "n_calls"), [("transductive", 1), ("support", 2)])
def test_pairs_meet_their_first_convolution_in_parts(mode, n_calls, monkeypatch):
    kernels, original = [], Pairs.convolved

    def recorded(pairs, kernel, convolve):
        kernels.append(tuple(kernel.shape))
        return original(pairs, kernel, convolve)

    monkeypatch.setattr(Pairs, "convolved", recorded)
    inputs, _ = episodes("float32")
    NEW["relation_network"](mode)({name: rows[:1] for name, rows in inputs.items()})
    # Of the relation module's two convolutions, the one that sees the pairs themselves.
    assert kernels == n_calls * [(3, 3, 2 * FILTERS, 4)]
