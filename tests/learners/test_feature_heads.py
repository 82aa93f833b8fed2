"""Heads on features against the papers' equations, worked out in float64 NumPy.

The encoder is the identity: examples are vectors of features, as `tfmeta.data.embed` makes them.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import DENSE, HEADS, OPTIONS, in_float64, make_learner

import tfmeta

RNG = np.random.default_rng(0)
N_FEATURES = 4
BASE = RNG.normal(1, 1, size=(12, N_FEATURES))


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_tests():
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state


def identity_encoder(n_features=N_FEATURES):
    return keras.Sequential([keras.Input((n_features,)), keras.layers.Identity()])


def made(name, encoder=None, **options):
    """A learner whose weights differ from those at the start."""
    learner = tfmeta.learners.get(name)(encoder or identity_encoder(), **options)
    if name == "simple_shot":
        learner.set_feature_mean(BASE)
    elif name == "cosine_prototypical_network":
        learner.scale.assign(7.0)
    elif name == "ridge_head":
        learner.log_regularization.assign(np.log(0.3))
        learner.scale.assign(5.0)
    return learner


def made_on(name, encoder):
    """A learner as it is at the start, small."""
    return tfmeta.learners.get(name)(encoder, task_mapping="loop", **OPTIONS[name])


# === The equations ===


def unit(x):
    return x / np.sqrt((x**2).sum(axis=-1, keepdims=True))


def one_hot(y):
    return np.eye(y.max() + 1)[y]


def means(x, y):
    return np.array([x[y == k].mean(axis=0) for k in range(y.max() + 1)])


def softmax(x):
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def simple_shot(x, y, q):
    centre = BASE.mean(axis=0)
    centroids = means(unit(x - centre), y)
    return -((unit(q - centre)[:, None] - centroids) ** 2).sum(axis=-1)


def cosine_prototypical_network(x, y, q):
    return 7 * unit(q) @ unit(means(x, y)).T


def ridge_head(x, y, q):
    # The primal solution, which inverts a matrix of the size of the features.
    return 5 * q @ np.linalg.inv(x.T @ x + 0.3 * np.eye(x.shape[1])) @ x.T @ one_hot(y)


def mahalanobis_head(x, y, q):
    logits = []
    for k, mean in enumerate(means(x, y)):
        n = (y == k).sum()
        of_class = np.cov(x[y == k].T) if n > 1 else np.zeros((x.shape[1],) * 2)
        shrinkage = n / (n + 1)
        covariance = shrinkage * of_class + (1 - shrinkage) * np.cov(x.T) + np.eye(x.shape[1])
        precision = np.linalg.inv(covariance)
        logits.append([-0.5 * (f - mean) @ precision @ (f - mean) for f in q])
    return np.transpose(logits)


def baseline_plus_plus(x, y, q, steps=20):
    x = unit(x)
    w = means(x, y)
    velocity = None
    for _ in range(steps):
        lengths = np.sqrt((w**2).sum(axis=1))
        p = softmax(2 * x @ (w / lengths[:, None]).T)
        gradient = np.zeros_like(w)
        for i, example in enumerate(x):
            for k in range(len(w)):
                # The derivative of cos(x, w) for a unit x: x/‖w‖ − (x·w) w/‖w‖³.
                of_cosine = example / lengths[k] - (example @ w[k]) * w[k] / lengths[k] ** 3
                gradient[k] += 2 * (p[i, k] - (y[i] == k)) * of_cosine / len(x)
        gradient += 1e-3 * w
        velocity = gradient if velocity is None else 0.9 * velocity + 0.1 * gradient
        w = w - 0.01 * velocity
    return 2 * unit(q) @ unit(w).T


def logistic_head(x, y, q):
    linear_model = pytest.importorskip("sklearn.linear_model")
    strength = 2.0 if y.max() == 1 else 1.0  # It fits two classes by one sigmoid.
    model = linear_model.LogisticRegression(C=strength, tol=1e-11, max_iter=10_000)
    values = model.fit(unit(x), y).decision_function(unit(q))
    return np.stack([-values / 2, values / 2], axis=1) if y.max() == 1 else values


EQUATIONS = {
    "baseline_plus_plus": baseline_plus_plus,
    "cosine_prototypical_network": cosine_prototypical_network,
    "logistic_head": logistic_head,
    "mahalanobis_head": mahalanobis_head,
    "ridge_head": ridge_head,
    "simple_shot": simple_shot,
}
# scikit-learn's solver stops at a gradient of about 1e-8.
TOLERANCE = {"logistic_head": 1e-6}
LABELS = [(0, 1, 2, 0, 1, 2, 2), (2, 0, 1), (1, 0, 0, 1, 1, 0)]


def task(labels, n_query=4):
    y = np.array(labels)
    return RNG.normal(size=(len(y), N_FEATURES)) + y[:, None], y, RNG.normal(size=(n_query, 4))


def test_every_head_has_its_equations():
    # The steps of these two have tests of their own.
    assert {*EQUATIONS, "fine_tuning", "leo"} == set(HEADS)


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.usefixtures("float64")
def test_logits_are_those_of_the_equations(name):
    options = {"steps": 20} if name == "baseline_plus_plus" else {}
    learner = made(name, **options)
    tolerance = {"rtol": TOLERANCE.get(name, 1e-10), "atol": TOLERANCE.get(name, 1e-11)}
    for labels in LABELS:
        x, y, q = task(labels)
        expected = EQUATIONS[name](x, y, q)
        inputs = {"support_x": x[None], "support_y": y[None], "query_x": q[None]}
        np.testing.assert_allclose(learner(inputs)[0], expected, **tolerance)
    model = learner.adapt(x, y)
    assert type(model).__module__.startswith("keras.")  # A plain model.
    np.testing.assert_allclose(model(q), expected, **tolerance)


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.usefixtures("float64")
def test_padding_and_classes_of_other_tasks_change_nothing(name):
    learner = made(name, **OPTIONS[name])
    x, y, q = task((0, 1, 2, 0, 1, 2))
    # Task 0 has two classes and padding in between, of any values; task 1 has three classes.
    two, padded_x, padded_y = (y < 2), x.copy(), y.copy()
    padded_x[~two], padded_y[~two] = 1e3, 0
    inputs = {
        "support_x": np.stack([padded_x, x]),
        "support_y": np.stack([padded_y, y]),
        "support_mask": np.stack([two, np.ones(6, bool)]).astype("float64"),
        "query_x": np.stack([q, q]),
    }
    logits = learner(inputs).numpy()
    for t, chosen in enumerate((two, y >= 0)):
        n_way = y[chosen].max() + 1
        alone = learner.adapt(x[chosen], y[chosen])(q)
        np.testing.assert_allclose(logits[t, :, :n_way], alone, rtol=1e-10, atol=1e-12)
    assert (logits[0, :, 2] == -1e9).all()


@pytest.mark.parametrize("name", EQUATIONS)
def test_episodes_of_features_need_no_encoder(name):
    """Classes of vectors are learned as they are; only a head with weights can be trained."""
    y = np.repeat(np.arange(4), 6)
    x = (3 * RNG.normal(size=(4, N_FEATURES))[y] + 0.1 * RNG.normal(size=(24, 4))).astype("float32")
    data = tfmeta.data.load((x, y))
    episodes = data.episodes(n_way=3, n_shot=2, n_query=2, meta_batch_size=2, seed=0)
    learner = made_on(name, identity_encoder())
    learner.compile("sgd", learner.default_loss(), metrics=["accuracy"], run_eagerly=True)
    assert learner.evaluate(episodes, steps=2, verbose=0)[1] > 0.9
    if name in ("cosine_prototypical_network", "ridge_head"):
        before = [v.numpy() for v in learner.trainable_variables]
        learner.fit(episodes, steps_per_epoch=1, shuffle=False, verbose=0)
        for old, new in zip(before, learner.trainable_variables, strict=True):
            assert old != new.numpy()
    else:
        with pytest.raises(ValueError, match="no trainable weights"):
            learner.fit(episodes, steps_per_epoch=1, shuffle=False, verbose=0)


@pytest.mark.parametrize("name", HEADS)
def test_zero_features_have_finite_logits_and_gradients(name):
    layers = [keras.layers.Dense(3, kernel_initializer="zeros"), keras.layers.ReLU()]
    learner = made_on(name, keras.Sequential([keras.Input((4,)), *layers]))
    x, y, q = task((0, 1, 0, 1))
    inputs = {"support_x": x[None], "support_y": y[None], "query_x": q[None]}
    inputs = {k: v.astype("float32") if k != "support_y" else v for k, v in inputs.items()}
    assert np.isfinite(learner(inputs)).all()
    learner.compile("sgd", learner.default_loss(), run_eagerly=True)
    assert np.isfinite(learner.train_on_batch(inputs, np.array([[0, 1, 0, 1]])))
    assert all(np.isfinite(w).all() for w in learner.get_weights())


# === Logistic regression ===


@pytest.mark.parametrize("strength", [1e-2, 1.0, 1e3])
@pytest.mark.usefixtures("float64")
def test_the_gradient_is_zero_at_the_solution(strength):
    """For separable classes and mixed ones; the biases sum to 0."""
    learner = tfmeta.LogisticHead(identity_encoder(), inverse_regularization=strength)
    for x, y in (task((0, 1, 2, 0, 1, 2))[:2], (RNG.normal(size=(12, 4)), np.arange(12) % 3)):
        state = learner.adapt_task(tf.constant(x), tf.constant(y))
        weights, bias = state["weights"].numpy(), state["bias"].numpy()
        errors = softmax(unit(x) @ weights + bias) - one_hot(y)
        gradient = weights + strength * unit(x).T @ errors
        np.testing.assert_allclose(gradient, 0, atol=1e-9 * strength + 1e-12)
        np.testing.assert_allclose(errors.sum(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(bias.sum(), 0, atol=1e-9)


# === The mean of SimpleShot's base classes ===


def test_the_mean_is_that_of_all_examples_of_a_data_set_or_an_array(tmp_path):
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.ReLU()])
    x = BASE.astype("float32")
    expected = encoder(x).numpy().mean(axis=0)
    for data in (x, tfmeta.data.load((x, np.arange(12) % 5))):
        learner = tfmeta.SimpleShot(encoder)
        np.testing.assert_array_equal(learner.feature_mean, np.zeros(3))
        learner.set_feature_mean(data, batch_size=5)
        np.testing.assert_allclose(learner.feature_mean, expected, rtol=1e-5)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    np.testing.assert_array_equal(loaded.feature_mean, learner.feature_mean)
    learner.set_feature_mean(None)
    np.testing.assert_array_equal(learner.feature_mean, np.zeros(3))


def test_an_adapted_model_keeps_the_mean_of_its_time():
    learner = make_learner("simple_shot", DENSE, batch_norm="transductive")
    learner.set_feature_mean(BASE.astype("float32"))
    x, y, q = (a.astype("float32") for a in task((0, 1, 2, 0, 1, 2)))
    model = learner.adapt(x, y.astype(int))
    before = model(q).numpy()
    learner.set_feature_mean(None)
    np.testing.assert_array_equal(model(q), before)
    assert np.abs(learner.adapt(x, y.astype(int))(q) - before).max() > 1e-3


@pytest.mark.parametrize("train", ["fit", "train_on_batch"])
def test_training_under_a_mean_is_refused_until_it_is_taken_away(train):
    learner = make_learner("simple_shot", DENSE)
    learner.compile("sgd", learner.default_loss(), run_eagerly=True)
    learner.set_feature_mean(BASE.astype("float32"))
    x, y, _ = (a.astype("float32") for a in task((0, 1, 2, 0, 1, 2)))
    inputs = {"support_x": x[None], "support_y": y[None].astype(int), "query_x": x[None]}
    with pytest.raises(ValueError, match=r"feature_mean would no longer be .*set_feature_mean"):
        getattr(learner, train)(inputs, y[None].astype(int))
    learner.set_feature_mean(None)
    getattr(learner, train)(inputs, y[None].astype(int))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((0, 4), "float32"), "a mean over examples, but there are none"),
        (np.zeros((3, 5), "float32"), r"takes examples of shape \(4,\).* \(5,\)"),
        (np.zeros((3, 4), "uint8"), "must be floats, pixels from 0 to 1; got uint8"),
        (np.full((3, 4), np.nan, "float32"), "mean feature is not finite"),
    ],
)
def test_a_mean_that_cannot_be_right_is_refused(data, message):
    learner = tfmeta.SimpleShot(identity_encoder())
    with pytest.raises(ValueError, match=message):
        learner.set_feature_mean(data)


# === Options ===


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("baseline_plus_plus", {"learning_rate": 0}, "learning_rate must be > 0"),
        ("baseline_plus_plus", {"steps": -1}, "steps must be an integer ≥ 0"),
        ("baseline_plus_plus", {"scale": -1}, "scale must be > 0"),
        ("cosine_prototypical_network", {"initial_scale": 0}, "initial_scale must be > 0"),
        ("logistic_head", {"newton_steps": 0}, "newton_steps must be an integer ≥ 1"),
        ("logistic_head", {"inverse_regularization": 0}, "inverse_regularization must be > 0"),
        ("mahalanobis_head", {"regularization": 0}, "regularization must be > 0"),
        ("ridge_head", {"initial_regularization": -1}, "initial_regularization must be > 0"),
        ("ridge_head", {"initial_scale": 0}, "initial_scale must be > 0"),
    ],
)
def test_options_that_cannot_be_right_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        tfmeta.learners.get(name)(identity_encoder(), **options)


def test_options_count():
    x, y, q = task((0, 1, 2, 0, 1, 2))
    with in_float64():
        steps = tfmeta.BaselinePlusPlus(identity_encoder(), steps=3)
        np.testing.assert_allclose(steps.adapt(x, y)(q), baseline_plus_plus(x, y, q, 3), rtol=1e-10)
        ridge = tfmeta.MahalanobisHead(identity_encoder(), regularization=4.0)
        # In units of twice the length, covariances are a quarter, and distances the same.
        halved = mahalanobis_head(x / 2, y, q / 2)
        np.testing.assert_allclose(ridge.adapt(x, y)(q), halved, rtol=1e-10)
