"""MetaGAN against float64 NumPy: its losses, and that each player follows its own alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import dense_relation_module

import tfmeta
from tfmeta.learners.real_or_fake import (
    log_odds_of_real,
    loss_as_fake,
    loss_as_real,
    pooled_mean,
)

pytestmark = pytest.mark.usefixtures("float64")
RATE = 0.3


def test_losses_and_their_gradients_are_those_of_a_softmax_with_one_more_class():
    """The class "fake" has the logit 0."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (5, 3))
    exponents = np.exp(np.hstack([logits, np.zeros((5, 1))]))
    p = exponents / exponents.sum(axis=1, keepdims=True)
    x = tf.constant(logits)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        log_odds = log_odds_of_real(x, "logits")
        as_real, as_fake = loss_as_real(log_odds), loss_as_fake(log_odds)
        # Salimans' form.
        salimans = -(log_odds - tf.nn.softplus(log_odds))
    np.testing.assert_allclose(as_real, -np.log(1 - p[:, 3]), rtol=1e-12)
    np.testing.assert_allclose(as_fake, -np.log(p[:, 3]), rtol=1e-12)
    np.testing.assert_allclose(salimans, as_real, rtol=1e-9)
    of_classes = exponents[:, :3] / exponents[:, :3].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(tape.gradient(as_real, x), p[:, :3] - of_classes, rtol=1e-9)
    np.testing.assert_allclose(tape.gradient(as_fake, x), p[:, :3], rtol=1e-12)
    scores = log_odds_of_real(tf.sigmoid(x), "scores")
    np.testing.assert_allclose(scores, log_odds, rtol=1e-9)
    # A constant shifts all logits: their softmax stays, but p(real) does not.
    np.testing.assert_allclose(log_odds_of_real(x + 2, "logits"), log_odds + 2, rtol=1e-12)


def test_losses_of_logits_that_overflow_are_finite():
    log_odds = log_odds_of_real(tf.constant([[1000.0, 999.0], [-1000.0, -999.0]]), "logits")
    np.testing.assert_allclose(loss_as_fake(log_odds)[0], 1000 + np.log(1 + np.exp(-1)))
    np.testing.assert_allclose(loss_as_real(log_odds)[1], 999 - np.log(1 + np.exp(-1)))
    assert np.isfinite(log_odds_of_real(tf.constant([[0.0, 1.0]]), "scores")).all()


def test_the_pooled_mean_counts_examples_of_all_sets_but_no_padding():
    values = [tf.constant([1.0, np.inf]), tf.constant([4.0, 4.0])]
    mean = pooled_mean(values, [tf.constant([1.0, 0.0]), None])
    np.testing.assert_allclose(mean, 3)


# === The whole step, of a linear model ===


def linear_learner(**options):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    generator = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    options = {"inner_steps": 2, "adversarial_weight": 0.7, "inner_adversarial_weight": 0.4} | {
        **options
    }
    return tfmeta.MetaGANMAML(
        network, RATE, generator=generator, example_encoder=encoder, n_code=2, n_noise=2, **options
    )


def episode(n_unlabelled=4, n_tasks=1):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n_tasks, 6 + 5 + n_unlabelled, 4))
    inputs = {
        "support_x": x[:, :6],
        "support_y": np.tile([0, 1, 2, 0, 1, 2], (n_tasks, 1)),
        "query_x": x[:, 6:11],
    }
    if n_unlabelled:
        inputs["unlabelled_x"] = x[:, 11:]
    return inputs, np.tile([0, 1, 2, 2, 1], (n_tasks, 1))


def softplus(x):
    return np.logaddexp(0, x)


class NumPyPlayers:
    """Both players' losses as functions of all weights, with NumPy.

    Args:
        inputs: dict. One task.
        query_y: array. Its queries' labels.
        noise: list of arrays. The normal numbers of the fakes: for each set of fakes those of the
            codes, and others.
    """

    def __init__(self, inputs, query_y, noise, inner_weight=0.4, weight=0.7):
        self.task = {name: value[0] for name, value in inputs.items()}
        self.query_y = query_y[0]
        self.noise = noise
        self.inner_weight, self.weight = inner_weight, weight

    def fakes(self, generator, i):
        kernel, bias, encoder_kernel, encoder_bias = generator
        codes = (self.task["support_x"] @ encoder_kernel + encoder_bias).mean(axis=0)
        code = codes[:2] + np.exp(codes[2:]) * self.noise[2 * i]
        return np.hstack([code, self.noise[2 * i + 1]]) @ kernel + bias

    @staticmethod
    def log_odds(weights, x):
        return np.log(np.exp(x @ weights[0] + weights[1]).sum(axis=1))

    def learner_loss(self, weights, labelled, y, unlabelled, fakes, weight):
        logits = labelled @ weights[0] + weights[1]
        log_z = self.log_odds(weights, labelled)
        cross_entropy = np.mean(log_z - logits[np.arange(len(y)), y])
        reals = np.vstack([labelled, unlabelled])
        real = softplus(-self.log_odds(weights, reals)).mean()
        return cross_entropy + weight * (real + softplus(self.log_odds(weights, fakes)).mean())

    def adapted(self, weights, inner_fakes):
        task = self.task
        arguments = task["support_x"], task["support_y"], task["unlabelled_x"], inner_fakes
        for _ in range(2):
            gradient = central_differences(
                lambda w: self.learner_loss(w, *arguments, self.inner_weight), weights, 1e-5
            )
            weights = [w - RATE * g for w, g in zip(weights, gradient, strict=True)]
        return weights

    def of_learner(self, weights, generator):
        weights = self.adapted(weights, self.fakes(generator, 0))
        task = self.task
        return self.learner_loss(
            weights, task["query_x"], self.query_y, task["unlabelled_x"],
            self.fakes(generator, 1), self.weight,
        )  # fmt: skip

    def of_generator(self, weights, generator, inner_fakes):
        weights = self.adapted(weights, inner_fakes)
        return softplus(-self.log_odds(weights, self.fakes(generator, 1))).mean()


def central_differences(function, arrays, step):
    gradients = []
    for i, array in enumerate(arrays):
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            values = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[i][index] += sign * step
                values.append(function(moved))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def with_recorded_noise(learner, monkeypatch):
    """Makes the normal numbers those of NumPy, and returns a list of them, which fills."""
    rng, drawn = np.random.default_rng(2), []

    def normal(n_rows, n_columns):
        drawn.append(rng.normal(size=(int(n_rows), n_columns)))
        return tf.constant(drawn[-1])

    monkeypatch.setattr(learner, "_normal", normal)
    return drawn


def steps_of_both(learner, inputs, query_y):
    """Takes a step of gradient descent at rate 1; returns what each player's weights lost."""
    learner.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    learner.generator_optimizer = keras.optimizers.SGD(1.0)
    learner.generator_optimizer.build(learner.generator_variables)
    players = learner.outer_variables, learner.generator_variables
    before = [[v.numpy() for v in variables] for variables in players]
    learner.train_step((inputs, query_y))
    return before, [
        [b - v.numpy() for b, v in zip(values, variables, strict=True)]
        for values, variables in zip(before, players, strict=True)
    ]


def test_each_player_follows_the_gradient_of_its_own_loss(monkeypatch):
    """The learner's passes through the inner steps; the generator's not through their fakes."""
    learner = linear_learner(task_mapping="loop")
    inputs, query_y = episode()
    noise = with_recorded_noise(learner, monkeypatch)
    (weights, generator), (of_learner, of_generator) = steps_of_both(learner, inputs, query_y)
    assert [n.shape for n in noise] == [(6, 2), (6, 2), (5, 2), (5, 2)]
    players = NumPyPlayers(inputs, query_y, noise)
    expected = central_differences(lambda w: players.of_learner(w, generator), weights, 1e-4)
    for got, wanted in zip(of_learner, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    fakes = players.fakes(generator, 0)
    wanted = central_differences(lambda g: players.of_generator(weights, g, fakes), generator, 1e-4)
    for got, expected in zip(of_generator, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
        assert np.abs(expected).max() > 1e-3
    # Without a gradient through the inner steps, the learner's would be another one.
    adapted = players.adapted(weights, fakes)
    first_order = central_differences(
        lambda w: players.learner_loss(
            w, players.task["query_x"], players.query_y, players.task["unlabelled_x"],
            players.fakes(generator, 1), players.weight,
        ),
        adapted,
        1e-4,
    )  # fmt: skip
    assert np.abs(first_order[0] - of_learner[0]).max() > 0.01


def test_training_takes_unlabelled_examples_and_prediction_needs_no_generator():
    """The fakes and what has no label leave no trace in moving averages."""
    keras.utils.set_random_seed(3)
    encoder = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8), keras.layers.BatchNormalization()]
    )
    for learner in (
        tfmeta.MetaGANMAML(
            keras.Sequential([*encoder.layers, keras.layers.Dense(3)]), RATE, batch_norm="running"
        ),
        tfmeta.MetaGANRelationNetwork(encoder, dense_relation_module(), batch_norm="support"),
    ):
        learner.compile("adam", run_eagerly=True)
        inputs, query_y = episode(n_tasks=2)
        learner(inputs)
        other = {**inputs, "unlabelled_x": 100 + inputs["unlabelled_x"]}
        start, seeds = learner.get_weights(), learner.generator_seeds.state.numpy()
        trained = []
        for given in (inputs, other):
            learner.set_weights(start)
            learner.train_step((given, query_y))
            assert not np.array_equal(learner.generator_seeds.state.numpy(), seeds)
            averages = [v for v in learner.non_trainable_variables if "moving" in v.name]
            trained.append([v.numpy() for v in averages])
        assert trained[0]
        for a, b in zip(*trained, strict=True):
            # What has no label changes the adapted weights a little; its mean of 100 would show.
            np.testing.assert_allclose(a, b, atol=0.01)
        plain = learner.without_generator()
        assert type(plain) in (tfmeta.MAML, tfmeta.RelationNetwork)
        labelled = {k: v for k, v in inputs.items() if k != "unlabelled_x"}
        np.testing.assert_array_equal(plain(labelled), learner(inputs))
        with pytest.raises(ValueError, match="learns nothing from unlabelled examples"):
            plain(inputs)


def test_a_file_keeps_the_generator_and_its_optimizer(tmp_path):
    learner = linear_learner()
    learner.compile("adam", run_eagerly=True)
    inputs, query_y = episode(n_tasks=2)
    learner.fit(inputs, query_y, verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.saving.load_model(tmp_path / "learner.keras")
    for name in ("generator_optimizer", "generator", "optimizer"):
        mine, others = getattr(learner, name).variables, getattr(loaded, name).variables
        assert mine
        for a, b in zip(mine, others, strict=True):
            np.testing.assert_array_equal(a, b)
    copy = learner.with_batch_norm("support")
    copy.compile("adam", run_eagerly=True)
    copy.fit(inputs, query_y, verbose=0)


def test_what_cannot_be_right_is_refused():
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="MetaGAN needs logits"):
        tfmeta.MetaGANMAML(network, inner_loss="mse")
    with pytest.raises(ValueError, match="regression has no classes"):
        tfmeta.MetaGANRelationNetwork(network, n_targets=1)
    with pytest.raises(ValueError, match=r"must map \[N, 164\] to \[N, 4\]; got one from"):
        tfmeta.MetaGANMAML(network, generator=tfmeta.backbones.generator(3, (4,)))
    with pytest.raises(ValueError, match=r"missing: \['unlabelled_x'\]"):
        inputs, _ = episode(n_unlabelled=0)
        linear_learner()({**inputs, "unlabelled_mask": np.ones((1, 4))})


@pytest.mark.parametrize("shape", [(5,), (28, 28, 1), (15, 18, 3)])
def test_default_networks_take_and_make_examples(shape):
    generator = tfmeta.backbones.generator(7, shape, filters=2)
    encoder = tfmeta.backbones.example_encoder(shape, 6, filters=2)
    examples = generator(np.ones((2, 7)))
    assert examples.shape == (2, *shape)
    assert encoder(examples).shape == (2, 6)
    with pytest.raises(ValueError, match="make your own networks"):
        tfmeta.backbones.generator(7, (4, 4))
