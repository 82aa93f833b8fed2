"""LEO against its equations, worked out in float64 NumPy, with the gradients by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta.learners.latent_codes import draw

N_FEATURES, N_LATENT = 5, 3
LABELS = np.array([0, 1, 2, 1, 0, 2, 0])
QUERY_LABELS = np.array([2, 0, 1, 1])
WEIGHTS = {
    "kl_weight": 0.3,
    "encoder_penalty_weight": 0.7,
    "l2_weight": 0.05,
    "orthogonality_weight": 0.4,
}


def identity_encoder():
    return keras.Sequential([keras.Input((N_FEATURES,)), keras.layers.Identity()])


def random_leo(rng, **options):
    """A learner with random weights and step sizes."""
    learner = tfmeta.LEO(identity_encoder(), n_latent=N_LATENT, task_mapping="loop", **options)
    for variable in learner.trainable_variables:
        values = 0.7 * rng.normal(size=variable.shape)
        is_rate = variable.name.endswith("learning_rates")
        variable.assign(0.1 + values**2 if is_rate else values)
    return learner


def task(rng):
    x = rng.normal(size=(len(LABELS), N_FEATURES)) + LABELS[:, None]
    return x, rng.normal(size=(len(QUERY_LABELS), N_FEATURES))


# === The equations ===


def softmax(x):
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def unit(x):
    return x / np.sqrt((x**2).sum(axis=-1, keepdims=True))


def class_means(x):
    return np.array([x[k == LABELS].mean(axis=0) for k in range(3)])


class Equations:
    """LEO with the weights of a learner, and given noise and dropout masks, in NumPy."""

    def __init__(self, weights, noise=None, masks=None):
        self.weights = weights  # By the names of the learner's variables.
        self.noise, self.masks = iter(noise or []), iter(masks or [])
        self.draws = noise is not None
        self.drops = masks is not None

    def dropped(self, x):
        return x * next(self.masks) if self.drops else x

    def drawn(self, parameters, offset):
        """Means, standard deviations, their derivatives by s, and noise."""
        mean, s = np.split(parameters, 2, axis=1)
        deviation = np.exp(s) - (1 - offset)
        slope = np.where(deviation > 1e-10, np.exp(s), 0)
        noise = next(self.noise) if self.draws else np.zeros_like(mean)
        return mean, np.maximum(deviation, 1e-10), slope, noise

    def codes(self, x):
        embedded = self.dropped(x) @ self.weights["latent_encoder"]
        outputs = np.zeros((len(x), 2 * N_LATENT))
        for i in range(len(x)):
            for j in range(len(x)):
                hidden = np.concatenate([embedded[i], embedded[j]])
                hidden = np.maximum(hidden @ self.weights["relation_network_0"], 0)
                hidden = np.maximum(hidden @ self.weights["relation_network_1"], 0)
                outputs[i] += hidden @ self.weights["relation_network_2"] / len(x)
        of_classes = class_means(outputs)
        mean, deviation, _, noise = self.drawn(of_classes[LABELS], 0)
        z = mean + deviation * noise
        density = -0.5 * noise**2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)
        prior = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
        return z, (density - prior).mean()

    def decoded(self, z):
        """The weights of the examples, and a function from a gradient by them to one by z."""
        decoder = self.weights["decoder"]
        offset = np.sqrt(2 / (N_FEATURES + 3))
        mean, deviation, slope, noise = self.drawn(z @ decoder, offset)
        by_mean, by_s = np.split(decoder, 2, axis=1)
        return mean + deviation * noise, lambda g: g @ by_mean.T + (g * noise * slope) @ by_s.T

    def gradient(self, x, w):
        """The gradient, by the examples' weights, of the sum of the losses."""
        x = self.dropped(x)
        of_classes = class_means(w)
        errors = softmax(x @ of_classes.T) - np.eye(3)[LABELS]
        shots = np.bincount(LABELS)[LABELS]
        return (errors.T @ x)[LABELS] / shots[:, None]

    def adapted(self, x, inner_steps, finetuning_steps):
        """The classes' weights, the divergence, and the codes before and after."""
        x = unit(x)
        z, divergence = self.codes(x)
        start = z
        for _ in range(inner_steps):
            w, to_codes = self.decoded(z)
            z = z - self.weights["inner_learning_rates"] * to_codes(self.gradient(x, w))
        w, _ = self.decoded(z)
        for _ in range(finetuning_steps):
            w = w - self.weights["finetuning_learning_rates"] * self.gradient(x, w)
        of_classes = class_means(w)
        return of_classes, divergence, start, z

    def logits(self, x, q, inner_steps, finetuning_steps):
        return unit(q) @ self.adapted(x, inner_steps, finetuning_steps)[0].T

    def loss(self, x, q, inner_steps, finetuning_steps, constant_codes=None):
        """The outer loss; and the codes, which `constant_codes` replace in the penalty."""
        w, divergence, start, z = self.adapted(x, inner_steps, finetuning_steps)
        p = softmax(self.dropped(unit(q)) @ w.T)
        total = -np.log(p[np.arange(len(q)), QUERY_LABELS]).mean()
        total += WEIGHTS["kl_weight"] * divergence
        after = z if constant_codes is None else constant_codes
        total += WEIGHTS["encoder_penalty_weight"] * ((after - start) ** 2).mean()
        for name, value in self.weights.items():
            if not name.endswith("learning_rates"):
                total += WEIGHTS["l2_weight"] * (value**2).sum() / 2
        rows = unit(self.weights["decoder"])
        errors = rows @ rows.T - np.eye(N_LATENT)
        return total + WEIGHTS["orthogonality_weight"] * (errors**2).mean(), z


def weights_of(learner):
    return {v.name: v.numpy() for v in learner.trainable_variables}


# === Predictions ===


@pytest.mark.usefixtures("float64")
def test_predictions_after_each_step_are_those_of_the_equations():
    rng = np.random.default_rng(0)
    learner = random_leo(rng, inner_steps=3, finetuning_steps=2)
    x, q = task(rng)
    inputs = {"support_x": x[None], "support_y": LABELS[None], "query_x": q[None]}
    weights = weights_of(learner)
    steps = [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 2)]
    expected = [Equations(weights).logits(x, q, *taken) for taken in steps]
    by_step = learner.predict_by_step(inputs, 5)[:, 0]
    np.testing.assert_allclose(by_step, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(learner(inputs)[0], expected[-1], rtol=1e-10, atol=1e-12)
    assert np.abs(np.diff(expected, axis=0)).max(axis=(1, 2)).min() > 1e-3  # Each step does much.
    model = learner.adapt(x, LABELS)
    assert type(model).__module__.startswith("keras.")  # A plain model.
    np.testing.assert_allclose(model(q), expected[-1], rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_without_steps_it_is_a_linear_hypernetwork():
    """With a relation network of identities on positive codes, the weights are M x of a class.

    Then the mean of a class's code is half the mean of its examples' e.
    """
    learner = tfmeta.LEO(
        identity_encoder(), n_latent=N_LATENT, inner_steps=0, finetuning_steps=0, normalize=False
    )
    rng = np.random.default_rng(1)
    encoder = rng.uniform(size=(N_FEATURES, N_LATENT))
    learner.latent_encoder.assign(encoder)
    for matrix in learner.relation_network:
        matrix.assign(np.eye(2 * N_LATENT))
    x, q = rng.uniform(size=(6, N_FEATURES)), rng.normal(size=(4, N_FEATURES))
    y = np.array([0, 1, 0, 1, 2, 2])
    means = np.array([x[y == k].mean(axis=0) for k in range(3)])
    expected = q @ (means @ encoder @ learner.decoder.numpy()[:, :N_FEATURES]).T
    np.testing.assert_allclose(learner.adapt(x, y)(q), expected, rtol=1e-10, atol=1e-12)


# === The loss of meta-training ===


@pytest.mark.usefixtures("float64")
def test_loss_and_meta_gradient_are_those_of_the_equations(monkeypatch):
    rng = np.random.default_rng(2)
    steps = inner_steps, finetuning_steps = 2, 2
    learner = random_leo(
        rng,
        inner_steps=inner_steps,
        finetuning_steps=finetuning_steps,
        dropout_rate=0.25,
        **WEIGHTS,
    )
    x, q = task(rng)
    n = len(x)
    noise = [rng.normal(size=(n, N_LATENT))]
    noise += [rng.normal(size=(n, N_FEATURES)) for _ in range(inner_steps + 1)]
    masks = [rng.integers(0, 2, size=(n, N_FEATURES)) * 1.5 for _ in range(1 + sum(steps))]
    masks += [rng.integers(0, 2, size=q.shape) * 1.5]
    draws, drops = iter(noise), iter(masks)
    monkeypatch.setattr(keras.random, "normal", lambda *_, **__: tf.constant(next(draws)))
    monkeypatch.setattr(keras.random, "dropout", lambda x, *_, **__: x * tf.constant(next(drops)))

    start = weights_of(learner)
    learner.compile(keras.optimizers.SGD(1.0), learner.default_loss(), run_eagerly=True)
    inputs = {"support_x": x[None], "support_y": LABELS[None], "query_x": q[None]}
    loss = learner.train_on_batch(inputs, QUERY_LABELS[None])
    assert next(draws, None) is None
    assert next(drops, None) is None
    expected, codes = Equations(start, noise, masks).loss(x, q, *steps)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)

    # The codes after the steps are a constant of the penalty: central differences, with it held.
    moved = weights_of(learner)
    for name, value in start.items():
        direction = rng.normal(size=value.shape)

        def loss_at(step, name=name, value=value, direction=direction):
            weights = {**start, name: value + step * direction}
            return Equations(weights, noise, masks).loss(x, q, *steps, constant_codes=codes)[0]

        slope = (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6
        actual = ((value - moved[name]) * direction).sum()
        np.testing.assert_allclose(actual, slope, rtol=1e-5, atol=1e-7, err_msg=name)


def test_draws_differ_by_step_task_and_batch_and_are_seeded(monkeypatch):
    """Two equal tasks have other noise, and so has the next meta-batch; not a second learner."""
    rng = np.random.default_rng(3)
    x, q = (array.astype("float32") for array in task(rng))
    inputs = {
        "support_x": np.stack([x, x]),
        "support_y": np.stack([LABELS, LABELS]),
        "query_x": np.stack([q, q]),
    }
    normal, drawn = keras.random.normal, []

    def recorded(*args, **kwargs):
        drawn.append(normal(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(keras.random, "normal", recorded)

    def predictions():
        keras.utils.set_random_seed(0)
        learner = tfmeta.LEO(identity_encoder(), n_latent=N_LATENT, inner_steps=2)
        return [learner(inputs, training=True).numpy() for _ in range(2)], learner

    (first, second), learner = predictions()
    of_weights = [d.numpy() for d in drawn if d.shape[1] == N_FEATURES]
    assert len(of_weights) == 2 * 2 * 3  # Batches, tasks, and decodings of a task.
    assert len(np.unique(of_weights, axis=0)) == len(of_weights)
    assert np.abs(first[0] - first[1]).max() > 1e-4
    assert np.abs(first - second).max() > 1e-4
    np.testing.assert_array_equal(predictions()[0], [first, second])
    outside = learner(inputs).numpy()
    np.testing.assert_array_equal(outside, learner(inputs))
    np.testing.assert_array_equal(outside[0], outside[1])


@pytest.mark.parametrize("offset", [0.0, 0.6])
def test_deviations_have_two_bounds(offset):
    s = tf.constant([[0.0, 0.0, 0.0, 0.0, -5.0, 0.0, 0.5, 1e4]])  # Four means before.
    free, bounded = (draw(s, offset, largest=bound).deviation for bound in (None, 2.0))
    expected = np.maximum(np.exp([-5, 0, 0.5]) - (1 - offset), 1e-10)
    np.testing.assert_allclose(free[0, :3], expected, rtol=1e-5)
    assert np.isinf(free[0, 3])
    np.testing.assert_allclose(bounded[0], [*expected, 2], rtol=1e-5)


@pytest.mark.large
def test_tasks_at_once_draw_as_one_after_another():
    rng = np.random.default_rng(4)
    tasks = [task(rng) for _ in range(2)]
    inputs = {
        "support_x": np.stack([x for x, _ in tasks]).astype("float32"),
        "support_y": np.stack([LABELS, LABELS]),
        "query_x": np.stack([q for _, q in tasks]).astype("float32"),
    }
    results = []
    for mapping in ("loop", "vectorized"):
        keras.utils.set_random_seed(0)
        learner = tfmeta.LEO(
            identity_encoder(), n_latent=N_LATENT, inner_steps=1, task_mapping=mapping
        )
        results.append(tf.function(learner, autograph=False)(inputs, training=True))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_latent", 0),
        ("inner_steps", -1),
        ("inner_learning_rate", 0),
        ("finetuning_steps", 1.5),
        ("dropout_rate", 1.0),
        ("dropout_rate", float("nan")),
        ("kl_weight", -1),
        ("l2_weight", float("inf")),
    ],
)
def test_options_out_of_range_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        tfmeta.LEO(identity_encoder(), **{option: value})
