"""What layers do beside their outputs counts as in plain Keras, or is refused by name.

Right values come from plain Keras: a learner without inner steps is its network, and one inner step
is one step of SGD.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tests.learners_made_small import (
    HEADS,
    N_WAY,
    OPTIONS,
    Networks,
    in_float64,
    make_learner,
    most_are_large,
)

L = keras.layers
CE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
N_TASKS = 2
EPISODES = {
    "support_x": RNG.normal(size=(N_TASKS, 6, 4)).astype("float32"),
    "support_y": np.tile(np.arange(6) % N_WAY, (N_TASKS, 1)),
    "query_x": RNG.normal(size=(N_TASKS, 5, 4)).astype("float32"),
}
QUERY_Y = np.tile(np.arange(5) % N_WAY, (N_TASKS, 1))
X, Y = EPISODES["support_x"][0], EPISODES["support_y"][0]
INNER_LOOPS = sorted(
    set(OPTIONS)
    - {"matching_network", "prototypical_network", *HEADS}
    - {"relation_network", "meta_gan_relation_network"}
)


def sequential(*layers, shape=(4,), dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


# === Losses of layers ===


@keras.saving.register_keras_serializable("test_side_effects")
class AddsLoss(keras.layers.Layer):
    """Adds a multiple of the mean square of what passes."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        self.add_loss(self.factor * keras.ops.mean(keras.ops.square(x)))
        return x


def adding(kind, factor):
    """Layers of 4 units; the last adds to the loss."""
    if kind == "add_loss":
        return [L.Dense(4), AddsLoss(factor)]
    if kind == "ActivityRegularization":
        return [L.Dense(4), L.ActivityRegularization(l2=factor)]
    return [L.Dense(4, activity_regularizer=keras.regularizers.L2(factor))]


KINDS = ("activity_regularizer", "ActivityRegularization", "add_loss")


def network_with_context(kind, factor):
    x, context = keras.Input((4,)), keras.Input((2,))
    hidden = L.Concatenate()([x, context])
    for layer in adding(kind, factor):
        hidden = layer(hidden)
    return keras.Model([x, context], L.Dense(N_WAY)(hidden))


def networks(kind, factor):
    return Networks(
        lambda: sequential(*adding(kind, factor), L.Dense(N_WAY)),
        lambda: sequential(*adding(kind, factor)),
        lambda: network_with_context(kind, factor),
        relation_module=lambda: sequential(L.Dense(1, activation="sigmoid"), shape=(8,)),
    )


def learner_of(name, kind, factor, **options):
    keras.utils.set_random_seed(1)
    return make_learner(name, networks(kind, factor), **options)


def added_for_queries(learner, name):
    """The mean over tasks of what the network, as the task adapted it, adds for its queries."""
    added = []
    for task in range(N_TASKS):
        adapted = learner.adapt(EPISODES["support_x"][task], EPISODES["support_y"][task])
        adapted(EPISODES["query_x"][task])
        added.append(float(sum(np.sum(loss) for loss in adapted.losses)))
    return np.mean(added)


FEW = {"maml", "reptile", "prototypical_network"}
WITHOUT_FAKES = {
    "meta_gan_maml": {"adversarial_weight": 0.0, "inner_adversarial_weight": 0.0},
    "meta_gan_relation_network": {"adversarial_weight": 0.0},
}


@pytest.mark.parametrize("kind", most_are_large(KINDS, KINDS[:1]))
@pytest.mark.parametrize("name", most_are_large(list(OPTIONS), FEW))
def test_what_layers_add_for_the_queries_is_added_to_the_loss(name, kind):
    """The network of an adapted model is plain Keras, and knows what it adds."""
    if kind != "activity_regularizer" and name not in ("maml", "prototypical_network"):
        pytest.skip("The kinds differ only inside of Keras.")
    learner = learner_of(name, kind, 3.0, **WITHOUT_FAKES.get(name, {}))
    learner.compile(keras.optimizers.SGD(0.0), learner.default_loss())
    without = learner.default_loss()
    predictions = learner(EPISODES)
    right = float(without(QUERY_Y, predictions)) + added_for_queries(learner, name)
    trained = learner.train_on_batch(EPISODES, QUERY_Y)
    np.testing.assert_allclose(trained, right, rtol=1e-4)
    np.testing.assert_allclose(learner.test_on_batch(EPISODES, QUERY_Y), right, rtol=1e-4)
    # What an earlier call added does not count again.
    np.testing.assert_allclose(learner.train_on_batch(EPISODES, QUERY_Y), right, rtol=1e-4)


@pytest.mark.large
def test_a_loss_that_is_no_sum_over_tasks_has_the_same_part():
    """Keras's own step is taken then, which must count the same."""

    def losses(loss):
        learner = learner_of("maml", "add_loss", 3.0)
        learner.compile(keras.optimizers.SGD(0.0), loss)
        return learner.train_on_batch(EPISODES, QUERY_Y)

    one_by_one, at_once = losses(CE), losses([CE])
    np.testing.assert_allclose(one_by_one, at_once, rtol=1e-5)
    total = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    difference = losses(total) - losses(CE)
    plain = learner_of("maml", "add_loss", 0.0)
    predictions = learner_of("maml", "add_loss", 3.0)(EPISODES)
    assert plain is not None
    right = float(total(QUERY_Y, predictions)) - float(CE(QUERY_Y, predictions))
    np.testing.assert_allclose(difference, right, rtol=1e-4)


@pytest.mark.parametrize("kind", ["activity_regularizer", "add_loss"])
def test_what_layers_add_for_the_support_set_enters_an_inner_step(kind):
    """One step of plain SGD, to whose loss Keras adds it."""
    make = networks(kind, 3.0).network
    keras.utils.set_random_seed(1)
    plain = make()
    keras.utils.set_random_seed(1)
    adapted = tfmeta.MAML(make(), inner_learning_rate=0.1).adapt(X, Y)
    plain.compile(keras.optimizers.SGD(0.1), CE)
    plain.train_on_batch(X, Y)
    for got, right in zip(adapted.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-6)


@pytest.fixture
def float64():
    with in_float64():
        yield


def check_meta_gradient(learner, loss):
    """Compares the meta-gradient with differences of the loss, in one direction."""
    learner.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    # Keras's optimizer would also apply constraints, after the step.
    gradients = []
    learner.optimizer.apply_gradients = lambda pairs: gradients.extend(g for g, _ in pairs)
    learner.train_step((EPISODES, QUERY_Y))
    gradient = [np.asarray(g) for g in gradients]
    start = [v.numpy() for v in learner.trainable_variables]
    direction = [np.random.default_rng(3).normal(size=v.shape) for v in start]

    def objective(step):
        for v, value, d in zip(learner.trainable_variables, start, direction, strict=True):
            v.assign(value + step * d)
        learner.reset_metrics()
        return float(learner.test_step((EPISODES, QUERY_Y))["loss"])

    differences = (objective(1e-6) - objective(-1e-6)) / 2e-6
    ours = sum(np.sum(g * d) for g, d in zip(gradient, direction, strict=True))
    np.testing.assert_allclose(ours, differences, rtol=1e-6)


@pytest.mark.parametrize("name", ["maml", "anil", "cavia", "maml_plus_plus", "relation_network"])
def test_the_meta_gradient_of_what_layers_add_is_that_of_differences(name, float64):
    learner = learner_of(name, "activity_regularizer", 3.0)
    check_meta_gradient(learner, learner.default_loss())


def test_padding_is_refused_where_layers_add_to_the_loss():
    learner = learner_of("maml", "add_loss", 3.0)
    padded = {**EPISODES, "support_mask": np.ones((N_TASKS, 6), "float32")}
    with pytest.raises(ValueError, match="so would padded examples"):
        learner(padded)


def test_mini_batches_of_a_support_set_are_no_padding():
    learner = learner_of("maml", "add_loss", 3.0, inner_batch_size=2)
    assert learner.adapt(X, Y).predict(X, verbose=0).shape == (6, N_WAY)


# === Weights that layers assign ===


def test_spectral_normalisation_is_refused_by_its_name_when_the_learner_is_made():
    network = sequential(L.SpectralNormalization(L.Dense(N_WAY), name="spectral"))
    for make in (tfmeta.MAML, tfmeta.PrototypicalNetwork, tfmeta.Reptile):
        with pytest.raises(ValueError, match="'spectral' is a SpectralNormalization"):
            make(network)


@pytest.mark.parametrize("make", [tfmeta.MAML, tfmeta.PrototypicalNetwork, tfmeta.Reptile])
def test_a_layer_that_assigns_a_trainable_weight_is_refused_by_the_weights_name(make):
    class Normalises(L.Dense):
        def call(self, x):
            self.kernel.assign(self.kernel / keras.ops.norm(self.kernel))
            return super().call(x)

    with pytest.raises(ValueError, match=r"assigns to its weight '.*kernel'"):
        make(sequential(Normalises(N_WAY))).adapt(X, Y)


def test_a_layer_that_counts_in_a_weight_that_is_not_trained_works():
    class Counts(L.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1.0)
            return x

    learner = tfmeta.PrototypicalNetwork(sequential(Counts(), L.Dense(4)))
    learner.compile("sgd", CE)
    learner.train_on_batch(EPISODES, QUERY_Y)
    assert float(learner.encoder.layers[0].count) == 2.0  # the support set, and the queries


def test_float8_is_refused_by_the_layers_name():
    network = sequential(L.Dense(N_WAY, name="eight"))
    network.layers[0].quantize("float8")
    with pytest.raises(ValueError, match="'eight' computes in float8"):
        tfmeta.MAML(network)


def test_layers_that_are_computed_again_are_refused_by_name():
    with keras.RematScope(mode="full"):
        layer = L.Dense(N_WAY, name="again")
    with pytest.raises(ValueError, match=r"'again' was made in a keras\.RematScope"):
        tfmeta.MAML(sequential(layer))


def test_weights_that_are_read_in_a_tf_function_are_refused():
    class Compiled(L.Dense):
        @tf.function
        def call(self, x):
            return super().call(x)

    with pytest.raises(ValueError, match=r"kernel' in a tf\.function"):
        tfmeta.MAML(sequential(Compiled(N_WAY))).adapt(X, Y)


@pytest.mark.parametrize("adapt_eagerly", [False, True])
def test_weights_that_are_read_in_loops_branches_and_grouped_convolutions_are_not(adapt_eagerly):
    class Loops(L.Dense):
        def call(self, x):
            step = lambda i, y: (i + 1, y + super(Loops, self).call(x))  # noqa: E731
            _, y = tf.while_loop(lambda i, _: i < 2, step, (0, tf.zeros([tf.shape(x)[0], 4])))
            return tf.cond(tf.reduce_sum(x) > 0, lambda: y, lambda: y + tf.reduce_sum(self.bias))

    network = sequential(
        Loops(4), L.Reshape((2, 2)), L.Conv1D(4, 1, groups=2), L.Flatten(), L.Dense(3)
    )
    learner = tfmeta.MAML(network, inner_learning_rate=0.1)
    if adapt_eagerly:
        state = learner.adapt_task(tf.constant(X), tf.constant(Y))
        assert len(state["trainable"]) == 6
    else:
        assert learner.adapt(X, Y).predict(X, verbose=0).shape == (6, N_WAY)


# === Constraints ===


def constrained_network(constraint):
    keras.utils.set_random_seed(0)
    return sequential(L.Dense(N_WAY, kernel_constraint=constraint, bias_constraint="non_neg"))


@pytest.mark.parametrize(
    "constraint", ["non_neg", keras.constraints.MaxNorm(0.5), keras.constraints.UnitNorm()]
)
def test_an_inner_step_keeps_to_constraints_as_a_step_of_sgd_does(constraint):
    plain = constrained_network(constraint)
    plain.compile(keras.optimizers.SGD(0.5), CE)
    plain.train_on_batch(X, Y)
    adapted = tfmeta.MAML(constrained_network(constraint), inner_learning_rate=0.5).adapt(X, Y)
    for got, right in zip(adapted.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(INNER_LOOPS) - {"cavia"}))
def test_constraints_hold_in_every_learner(name):
    def network():
        dense = L.Dense(N_WAY, kernel_constraint=keras.constraints.MaxNorm(0.1))
        return sequential(dense, shape=(4,))

    options = {"inner_steps": 2} | ({} if name == "meta_lstm" else {"inner_learning_rate": 5.0})
    made = Networks(network, lambda: sequential(L.Flatten()), network)
    if name == "anil":
        learner = tfmeta.ANIL(sequential(L.Flatten()), network(), **options)
    else:
        learner = make_learner(name, made, **options)
    kernel = learner.adapt(X, Y).get_weights()[0]
    if name == "amortized_maml":  # The means come first in the one vector that it keeps.
        kernel = kernel[: 4 * N_WAY].reshape(4, N_WAY)
    assert np.linalg.norm(kernel, axis=0).max() <= 0.1 + 1e-5


def test_the_meta_gradient_goes_through_constraints(float64):
    keras.utils.set_random_seed(0)
    network = sequential(
        L.Dense(5, activation="tanh", kernel_constraint=keras.constraints.UnitNorm()),
        L.Dense(N_WAY),
    )
    learner = tfmeta.MAML(network, inner_learning_rate=0.3, inner_steps=2)
    check_meta_gradient(learner, learner.default_loss())


# === Gradients by tables ===

TOKENS = {
    "support_x": RNG.integers(0, 9, (N_TASKS, 6, 5)).astype("int32"),
    "support_y": EPISODES["support_y"],
    "query_x": RNG.integers(0, 9, (N_TASKS, 5, 5)).astype("int32"),
}


@keras.saving.register_keras_serializable("test_side_effects")
class Product(keras.layers.Layer):
    """An `Embedding` as a matrix product, whose gradient is dense."""

    def build(self, shape):
        self.table = self.add_weight(shape=(9, 3), initializer="glorot_uniform")

    def call(self, tokens):
        return tf.one_hot(tf.cast(tokens, tf.int32), 9) @ tf.convert_to_tensor(self.table)


@keras.saving.register_keras_serializable("test_side_effects")
class Taken(Product):
    def call(self, tokens):
        return keras.ops.take(self.table, tokens, axis=0)


@keras.saving.register_keras_serializable("test_side_effects")
class Gathered(Product):
    def call(self, tokens):
        return tf.gather(tf.convert_to_tensor(self.table), tokens)


def embed(layer, x):
    return L.Flatten()(layer(x))


def of_tokens(layer):
    def functional(*layers):
        x = keras.Input((5,), dtype="int32")
        y = embed(layer(), x)
        for other in layers:
            y = other(y)
        return keras.Model(x, y)

    def with_context():
        x, context = keras.Input((5,), dtype="int32"), keras.Input((2,))
        return keras.Model(
            [x, context], L.Dense(N_WAY)(L.Concatenate()([embed(layer(), x), context]))
        )

    return Networks(
        lambda: functional(L.Dense(N_WAY)),
        functional,
        with_context,
        relation_module=lambda: sequential(L.Dense(1, activation="sigmoid"), shape=(30,)),
    )


def trained_on_tokens(name, layer, optimizer, **options):
    keras.utils.set_random_seed(2)
    learner = make_learner(name, of_tokens(layer), **options)
    rng = np.random.default_rng(3)
    for variable in learner.trainable_variables:
        if "rates" not in variable.name:
            variable.assign(rng.normal(scale=0.5, size=variable.shape))
    learner.compile(optimizer(), learner.default_loss())
    learner.train_on_batch(TOKENS, QUERY_Y)
    adapted = learner.adapt(TOKENS["support_x"][0], TOKENS["support_y"][0])
    predictions = adapted.predict(TOKENS["query_x"][0], verbose=0)
    return [predictions, *(v.numpy() for v in learner.trainable_variables)]


WAYS = {
    # A generator makes no integers.
    **{name: (name, {}) for name in OPTIONS if name not in WITHOUT_FAKES},
    "first order": ("maml", {"first_order": True}),
    **{
        f"rule {rule}": ("maml", {"inner_rule": rule})
        for rule in ("momentum", "adam", "per_parameter", "per_layer_per_step", "schedule")
    },
    "reptile with adam": ("reptile", {"inner_rule": "adam"}),
}


@pytest.mark.parametrize("way", most_are_large(list(WAYS), {"reptile", "first order"}))
def test_a_table_is_learned_as_the_matrix_that_it_is(way):
    name, options = WAYS[way]
    layers = [lambda: L.Embedding(9, 3)]
    if way == "maml":
        layers += [Taken, Gathered]
    right = trained_on_tokens(name, Product, lambda: keras.optimizers.SGD(0.5), **options)
    for layer in layers:
        got = trained_on_tokens(name, layer, lambda: keras.optimizers.SGD(0.5), **options)
        for a, b in zip(got, right, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def test_a_tables_meta_gradient_is_clipped():
    def optimizer():
        return keras.optimizers.Adam(0.1, global_clipnorm=0.01)

    right, got = (
        trained_on_tokens("maml", layer, optimizer)
        for layer in (Product, lambda: L.Embedding(9, 3))
    )
    for a, b in zip(got, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


# === Operations without a derivative ===


def test_an_operation_without_a_second_derivative_is_named_with_a_way_out():
    """`LRNGrad` has none."""

    def learner(**options):
        normalise = L.Lambda(
            lambda x: tf.nn.local_response_normalization(x[:, None, None])[:, 0, 0]
        )
        network = sequential(L.Dense(4), normalise, L.Dense(N_WAY))
        learner = tfmeta.MAML(network, **options)
        learner.compile("sgd", CE)
        return learner

    for loss in (CE, [CE]):  # The learner's own step, and Keras's.
        second_order = learner()
        second_order.compile("sgd", loss)
        with pytest.raises(
            ValueError, match=r"derivative of the operation LRNGrad.*first_order=True"
        ):
            second_order.train_on_batch(EPISODES, QUERY_Y)
    assert np.isfinite(learner(first_order=True).train_on_batch(EPISODES, QUERY_Y))


@pytest.mark.parametrize("is_eager", [False, True])
@pytest.mark.parametrize(
    ("operation", "call"),
    {
        "ResizeBilinearGrad": lambda x: tf.raw_ops.ResizeBilinear(images=x, size=[5, 5]),
        "FakeQuantWithMinMaxArgsGradient": lambda x: tf.raw_ops.FakeQuantWithMinMaxArgs(inputs=x),
        "FakeQuantWithMinMaxVarsGradient": lambda x: tf.raw_ops.FakeQuantWithMinMaxVars(
            inputs=x, min=-1.0, max=1.0
        ),
    }.items(),
)
def test_a_second_derivative_that_tensorflow_takes_for_zero_is_refused(operation, call, is_eager):
    for first_order in (True, False):
        image = L.Dense(9), L.Reshape((3, 3, 1)), L.Lambda(call)
        network = sequential(*image, L.Flatten(), L.Dense(N_WAY))
        learner = tfmeta.MAML(network, first_order=first_order)
        learner.compile("sgd", CE, run_eagerly=is_eager)
        if first_order:
            assert np.isfinite(learner.train_on_batch(EPISODES, QUERY_Y))
        else:
            with pytest.raises(ValueError, match=f"derivative of the operation {operation}"):
                learner.train_on_batch(EPISODES, QUERY_Y)
    # Outside of tfmeta, TensorFlow is as it was: it sees no dependence.
    x = tf.Variable(tf.ones([1, 3, 3, 1]))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = tf.reduce_sum(call(x) ** 2)
        gradient = inner.gradient(y, x)
    assert outer.gradient(gradient, x) is None


# === Masks ===


def test_masks_reach_the_head_of_an_anil_as_in_one_network():
    """Also if inner steps take mini-batches, of which the masks are those of their rows."""

    def body():
        x = keras.Input((5,), dtype="int32")
        return keras.Model(x, L.Embedding(9, 3, mask_zero=True)(x))

    def head():
        return sequential(L.GlobalAveragePooling1D(), L.Dense(N_WAY), shape=(5, 3))

    tokens = {name: x.copy() for name, x in TOKENS.items()}
    for name in ("support_x", "query_x"):
        tokens[name][:, ::2, 3:] = 0  # padding, in every other example
    for size in (None, 4):
        keras.utils.set_random_seed(0)
        encoder, top = body(), head()
        top.layers[0].supports_masking = True
        options = {"inner_learning_rate": 0.5, "inner_batch_size": size}
        anil = tfmeta.ANIL(encoder, top, **options)
        x = keras.Input((5,), dtype="int32")
        encoder.trainable = False
        whole = tfmeta.MAML(keras.Model(x, top(encoder(x))), **options)
        task = tokens["support_x"][0], tokens["support_y"][0]
        queries = tokens["query_x"][0]
        got, right = (np.asarray(learner.adapt(*task)(queries)) for learner in (anil, whole))
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)
        at_once = np.asarray(anil({name: x[:1] for name, x in tokens.items()}))[0]
        np.testing.assert_allclose(at_once, right, rtol=1e-5, atol=1e-6)
        features = encoder(queries)
        unmasked = anil.head(np.asarray(features))
        assert np.abs(anil.head(features) - unmasked).max() > 1e-3
