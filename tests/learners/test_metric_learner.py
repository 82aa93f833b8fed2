"""What the learners share that compare features: batch norm of the encoder, and plain models."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import most_are_large

import tfmeta

RNG = np.random.default_rng(0)
EPSILON, MOMENTUM = 0.01, 0.9


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_tests():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def randomise(model):
    """Random weights, except that variances and scales stay positive."""
    for variable in model.variables:
        values = RNG.normal(size=variable.shape)
        positive = variable.name in ("moving_variance", "gamma")
        variable.assign(0.5 + values**2 if positive else values)
    return model


def dense_network(n_inputs, n_outputs, norm, activation="tanh"):
    layers = [keras.Input((n_inputs,)), keras.layers.Dense(4)]
    if norm:
        layers.append(keras.layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM))
    return keras.Sequential([*layers, keras.layers.Dense(n_outputs, activation=activation)])


def encoder(norm):
    return dense_network(5, 3, norm)


# === Batch norm of the encoder ===


def moments(x):
    return x.mean(axis=0), ((x - x.mean(axis=0)) ** 2).mean(axis=0)


def moved(averages, statistics):
    return [
        MOMENTUM * old + (1 - MOMENTUM) * new for old, new in zip(averages, statistics, strict=True)
    ]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", ["transductive", "support", "running"])
@pytest.mark.usefixtures("float64")
def test_batch_norm_of_the_encoder(batch_norm, training):
    learner = randomise(tfmeta.PrototypicalNetwork(encoder(norm=True), batch_norm=batch_norm))
    first, norm, last = learner.encoder.layers
    start = [norm.moving_mean.numpy(), norm.moving_variance.numpy()]

    def features(hidden, mean, variance):
        hidden = norm.gamma.numpy() * (hidden - mean) / np.sqrt(variance + EPSILON)
        return np.tanh((hidden + norm.beta.numpy()) @ last.kernel.numpy() + last.bias.numpy())

    labels = np.array([0, 1, 1, 0, 1])
    inputs = {
        "support_x": RNG.normal(size=(2, 5, 5)),
        "support_y": np.stack([labels, labels]),
        "query_x": 2 + RNG.normal(size=(2, 4, 5)),
    }
    expected, averages = [], []
    for x, q in zip(inputs["support_x"], inputs["query_x"], strict=True):
        support, queries = (v @ first.kernel.numpy() + first.bias.numpy() for v in (x, q))
        of_support = of_queries = start
        if batch_norm != "running" or training:
            of_support, of_queries = moments(support), moments(queries)
        averages.append(moved(moved(start, of_support), of_queries))
        if batch_norm == "support":
            of_queries = of_support
        f, g = features(support, *of_support), features(queries, *of_queries)
        prototypes = np.array([f[labels == k].mean(axis=0) for k in (0, 1)])
        expected.append(-((g[:, None] - prototypes) ** 2).sum(axis=-1))
    np.testing.assert_allclose(learner(inputs, training=training), expected, rtol=1e-11, atol=1e-12)
    # In training, the support set and then the queries move the averages, from the same start in
    # each task, and the tasks' mean is kept.
    updated = np.mean(averages, axis=0) if batch_norm == "running" and training else start
    np.testing.assert_allclose(norm.moving_mean, updated[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(norm.moving_variance, updated[1], rtol=1e-11, atol=1e-12)
    if not training:
        for t in range(2):
            model = learner.adapt(inputs["support_x"][t], labels)
            np.testing.assert_allclose(
                model(inputs["query_x"][t]), expected[t], rtol=1e-11, atol=1e-12
            )


# === Plain Keras models ===


def module(norm):
    return dense_network(6, 1, norm, activation="sigmoid")


SUPPORT = {"batch_norm": "support"}
PLAIN = {
    "prototypical": lambda: tfmeta.PrototypicalNetwork(encoder(True), **SUPPORT),
    "matching": lambda: tfmeta.MatchingNetwork(encoder(True), **SUPPORT),
    "full_context": lambda: tfmeta.MatchingNetwork(encoder(True), full_context=True, **SUPPORT),
    "relation": lambda: tfmeta.RelationNetwork(encoder(True), module(True), **SUPPORT),
    # Without batch norm, queries have no statistics in any mode.
    "cosine_no_norm": lambda: tfmeta.PrototypicalNetwork(encoder(False), distance="cosine"),
    "regression_no_norm": lambda: tfmeta.MatchingNetwork(encoder(False)),
    "relation_regression": lambda: tfmeta.RelationNetwork(
        encoder(True), module(True), n_targets=2, **SUPPORT
    ),
    "relation_no_norm": lambda: tfmeta.RelationNetwork(encoder(False), module(False)),
}

LOAD_AND_PREDICT = """
import json, sys
sys.modules["tfmeta"] = None  # Importing it would fail.
import keras
import numpy as np
folder = sys.argv[1]
x = np.load(f"{folder}/x.npy")
for name in json.load(open(f"{folder}/names.json")):
    model = keras.models.load_model(f"{folder}/{name}.keras")
    np.save(f"{folder}/{name}.npy", model.predict(x, verbose=0))
"""


@pytest.mark.parametrize("name", ["prototypical", "relation"])
def test_an_adapted_model_has_nothing_of_tfmeta(name):
    x = RNG.normal(size=(6, 5)).astype("float32")
    model = PLAIN[name]().adapt(x, np.array([0, 2, 1, 1, 2, 1]))
    assert "tfmeta" not in model.to_json()


@pytest.mark.large
def test_adapted_models_load_and_predict_where_there_is_no_tfmeta(tmp_path):
    support_x = RNG.normal(size=(6, 5)).astype("float32")
    labels = np.array([0, 2, 1, 1, 2, 1])
    x = RNG.normal(size=(4, 5)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    expected = {}
    for name, make in PLAIN.items():
        learner = randomise(make())
        y = RNG.normal(size=(6, 2)).astype("float32") if "regression" in name else labels
        model = learner.adapt(support_x, y)
        assert type(model).__module__.startswith("keras.")
        model.save(tmp_path / f"{name}.keras")
        inputs = {"support_x": support_x[None], "support_y": y[None], "query_x": x[None]}
        expected[name] = learner(inputs)[0].numpy()
    (tmp_path / "names.json").write_text(json.dumps(list(PLAIN)))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", LOAD_AND_PREDICT, str(tmp_path)]
    child = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert child.returncode == 0, child.stderr
    for name, predictions in expected.items():
        loaded = np.load(tmp_path / f"{name}.npy")
        assert np.ptp(predictions) > 1e-3
        np.testing.assert_allclose(loaded, predictions, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "learner",
    [
        lambda: tfmeta.PrototypicalNetwork(encoder(True)),
        lambda: tfmeta.MatchingNetwork(encoder(True)),
        lambda: tfmeta.RelationNetwork(encoder(True), module(False)),
        lambda: tfmeta.RelationNetwork(encoder(False), module(True)),
    ],
)
def test_a_transductive_model_with_batch_norm_is_no_plain_one(learner):
    x, y = RNG.normal(size=(4, 5)).astype("float32"), np.array([0, 1, 0, 1])
    model = learner().adapt(x, y)
    assert isinstance(model, tfmeta.learners.adapted_model.AdaptedModel)


@pytest.mark.parametrize(
    "learner",
    [
        tfmeta.PrototypicalNetwork,
        lambda encoder: tfmeta.MatchingNetwork(encoder, full_context=True),
        lambda encoder: tfmeta.RelationNetwork(encoder, module(False)),
    ],
)
def test_images_of_any_size(learner):
    layers = [keras.layers.Conv2D(3, 3), keras.layers.GlobalAveragePooling2D()]
    learner = learner(keras.Sequential([keras.Input((None, None, 2)), *layers]))
    randomise(learner)
    labels = np.array([0, 1, 1, 0])
    x = RNG.normal(size=(4, 6, 7, 2)).astype("float32")
    q = RNG.normal(size=(5, 6, 7, 2)).astype("float32")
    inputs = {"support_x": x[None], "support_y": labels[None], "query_x": q[None]}
    model = learner.adapt(x, labels)
    np.testing.assert_allclose(model(q), learner(inputs)[0], rtol=1e-4, atol=1e-5)
    # The mean over a constant image does not depend on its size.
    small, large = (model(np.full((1, n, n, 2), 0.7, "float32")) for n in (3, 9))
    np.testing.assert_allclose(small, large, rtol=1e-4, atol=1e-5)


# === The number of classes ===

LEARNERS = {
    "prototypical": lambda: tfmeta.PrototypicalNetwork(encoder(True)),
    "matching": lambda: tfmeta.MatchingNetwork(encoder(True)),
    "full_context": lambda: tfmeta.MatchingNetwork(encoder(True), full_context=True),
    "relation": lambda: tfmeta.RelationNetwork(encoder(True), module(False)),
}


def episode(n_way=3):
    labels = np.arange(2 * n_way)[None] % n_way
    x, q = (RNG.normal(size=(1, n, 5)).astype("float32") for n in (2 * n_way, 4))
    return {"support_x": x, "support_y": labels, "query_x": q}


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_the_number_of_classes_is_an_argument_of_adapt_task(learner):
    learner, inputs = learner(), episode(n_way=3)
    expected = learner(inputs).numpy()[0]
    support = (tf.constant(inputs[name][0]) for name in ("support_x", "support_y"))
    state = learner.adapt_task(*support, n_way=tf.constant(7))
    predictions = learner.predict_task(state, tf.constant(inputs["query_x"][0])).numpy()
    assert predictions.shape == (4, 7)
    np.testing.assert_allclose(predictions[:, :3], expected, rtol=1e-5, atol=1e-6)
    assert (predictions.argmax(axis=-1) < 3).all()  # Classes without examples are never predicted.


@pytest.mark.parametrize("learner", most_are_large(LEARNERS, ["prototypical"]))
def test_several_threads_trace_one_learner_for_numbers_of_classes_of_their_own(learner):
    learner = learner()
    learner(episode(n_way=2))
    everyone = threading.Barrier(4, timeout=60)

    def trace(n_way):
        def adapt_and_predict(inputs):
            everyone.wait()
            predictions = learner(inputs)
            everyone.wait()
            return predictions

        return tf.function(adapt_and_predict, autograph=False)(episode(n_way))

    with ThreadPoolExecutor(4) as threads:
        for n_way, predictions in zip((2, 3, 4, 5), threads.map(trace, (2, 3, 4, 5)), strict=True):
            assert predictions.shape == (1, 4, n_way)
