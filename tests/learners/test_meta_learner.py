"""The contract that every learner is built on."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta import MetaLearner

RNG = np.random.default_rng(1)
SPARSE = keras.losses.SparseCategoricalCrossentropy


def network():
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(3),
        ]
    )


def learner(loss="sparse", metrics=(), batch_norm="transductive", seed=0, **compile_options):
    keras.utils.set_random_seed(seed)
    model = tfmeta.MAML(network(), inner_learning_rate=0.3, inner_steps=2, batch_norm=batch_norm)
    loss = SPARSE(from_logits=True) if loss == "sparse" else loss
    # Plain SGD: Adam would amplify rounding.
    model.compile(keras.optimizers.SGD(0.5), loss, metrics=list(metrics), **compile_options)
    return model


def episodes(n_tasks=3):
    inputs = {
        "support_x": RNG.normal(size=(n_tasks, 6, 4)).astype("float32"),
        "support_y": np.tile([0, 1, 2, 0, 1, 2], (n_tasks, 1)),
        "query_x": RNG.normal(size=(n_tasks, 9, 4)).astype("float32"),
    }
    return inputs, np.tile(np.arange(9) % 3, (n_tasks, 1))


def squared_softmax_error(y_true, y_pred):
    one_hot = keras.ops.one_hot(keras.ops.cast(y_true, "int32"), 3)
    return keras.ops.mean((one_hot - keras.ops.softmax(y_pred)) ** 2, axis=-1)


# === train_step ===


LOSSES = {
    "mean": SPARSE(from_logits=True),
    "sum": SPARSE(from_logits=True, reduction="sum"),
    "weighted mean": SPARSE(from_logits=True, reduction="mean_with_sample_weight"),
    "function": squared_softmax_error,
}
BY_DEFAULT = {
    ("sum", "support", True),
    ("weighted mean", "support", True),
    ("function", "support", False),
}


@pytest.mark.parametrize(
    ("loss", "batch_norm", "weighted"),
    [
        pytest.param(
            *(LOSSES[name], mode, weighted),
            id=f"{name}-{mode}-{weighted}",
            marks=[] if (name, mode, weighted) in BY_DEFAULT else [pytest.mark.large],
        )
        for name in LOSSES
        for mode in ("transductive", "running", "support")
        for weighted in (False, True)
    ],
)
def test_train_step_equals_the_default_one(loss, batch_norm, weighted):
    data = episodes()
    if weighted:
        weights = RNG.integers(0, 2, size=(3, 9)).astype("float32")
        weights[:, 0] = 1
        weights[2, 1:] = 0
        data = (*data, weights)
    results = []
    for step in (MetaLearner.train_step, keras.Model.train_step):
        model = learner(loss, metrics=["accuracy"], batch_norm=batch_norm)
        if getattr(loss, "reduction", "") == "sum":
            model.optimizer.learning_rate = 0.01
        for _ in range(2):
            logs = step(model, data)
        results.append((model.get_weights(), {k: float(v) for k, v in logs.items()}))
    (ours, our_logs), (default, default_logs) = results
    assert set(our_logs) == set(default_logs) == {"loss", "accuracy"}
    for name, value in default_logs.items():
        assert our_logs[name] == pytest.approx(value, rel=1e-5)
    start = learner(loss, batch_norm=batch_norm).get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(start, default, strict=True)) > 1e-3
    for a, b in zip(ours, default, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_meta_gradient_is_taken_per_task():
    """The default step would be equal in value: this guards that ours is the one that runs."""
    model, taken = learner(run_eagerly=True), []
    original = model.compute_loss

    def spy(**arguments):
        taken.append(arguments["y_pred"].shape[0])
        return original(**arguments)

    model.compute_loss = spy
    model.train_step(episodes(n_tasks=3))
    assert taken == [1, 1, 1]


def test_a_meta_batch_is_the_mean_of_its_tasks_in_any_order():
    inputs, query_y = episodes(n_tasks=4)
    order = [2, 0, 3, 1]
    shuffled = {k: v[order] for k, v in inputs.items()}
    results = []
    for data in ((inputs, query_y), (shuffled, query_y[order])):
        model = learner()
        model.train_step(data)
        results.append(model.get_weights())
    single = []
    for t in range(4):
        model = learner()
        model.train_step(({k: v[t : t + 1] for k, v in inputs.items()}, query_y[t : t + 1]))
        single.append(model.get_weights())
    for a, b, *of_tasks in zip(*results, *single, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(a, np.mean(of_tasks, axis=0), rtol=1e-5, atol=1e-6)


def test_fit_evaluate_and_predict_are_keras_own_and_agree_eagerly():
    inputs, query_y = episodes()
    results = []
    for run_eagerly in (False, True):
        model = learner(metrics=["accuracy"], run_eagerly=run_eagerly)
        data = tf.data.Dataset.from_tensors((inputs, query_y))
        history = model.fit(data.repeat(3), epochs=1, validation_data=data, verbose=0).history
        evaluated = model.evaluate(data, return_dict=True, verbose=0)
        predictions = model.predict(data, verbose=0)
        accuracy = (predictions.argmax(-1) == query_y).mean()
        assert evaluated["accuracy"] == pytest.approx(accuracy)
        assert history["val_loss"][0] == pytest.approx(evaluated["loss"], rel=1e-5)
        np.testing.assert_allclose(model(inputs), predictions, atol=1e-5)
        results.append(predictions)
    np.testing.assert_allclose(*results, atol=1e-4)


def test_call_changes_no_variable():
    model = learner(batch_norm="running")
    before = [v.numpy() for v in model.variables]
    model(episodes()[0], training=False)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_mixed_precision_trains_and_predicts_in_float32():
    keras.utils.set_random_seed(0)
    with_policy = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(16, activation="relu", dtype="mixed_bfloat16"),
            keras.layers.Dense(3, dtype="mixed_bfloat16"),
        ]
    )
    model = tfmeta.MAML(with_policy, inner_learning_rate=0.3)
    model.compile(keras.optimizers.Adam(0.01), SPARSE(from_logits=True))
    data = tf.data.Dataset.from_tensors(episodes()).repeat()
    losses = model.fit(data, epochs=2, steps_per_epoch=20, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    assert model(episodes()[0]).dtype == tf.float32


# === A user's own learner ===


@keras.saving.register_keras_serializable("test_meta_learner")
class Prototypes(MetaLearner):
    """Two functions, and nothing else but a network of its own."""

    def __init__(self, encoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder

    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        members = tf.one_hot(tf.cast(support_y, tf.int32), 3, axis=0)
        if support_mask is not None:
            members *= support_mask
        members /= tf.reduce_sum(members, axis=1, keepdims=True)
        return {"prototypes": members @ self.encoder(support_x, training=training)}

    def predict_task(self, state, query_x, query_mask=None, training=False):
        difference = self.encoder(query_x, training=training)[:, None] - state["prototypes"]
        return -tf.reduce_sum(difference**2, axis=-1)

    def get_config(self):
        encoder = keras.saving.serialize_keras_object(self.encoder)
        return {**super().get_config(), "encoder": encoder}

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)


def test_a_learner_of_two_functions_trains_adapts_and_saves(tmp_path):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [keras.layers.Dense(8), keras.layers.BatchNormalization()]  # Not built yet.
    )
    model = Prototypes(encoder)
    model.compile(keras.optimizers.SGD(0.1), SPARSE(from_logits=True))
    inputs, query_y = episodes()
    model.fit(tf.data.Dataset.from_tensors((inputs, query_y)), verbose=0)
    # What a layer assigns in training is written once, averaged over tasks.
    assert np.abs(encoder.layers[1].moving_mean.numpy()).max() > 0

    adapted = model.adapt(inputs["support_x"][0], inputs["support_y"][0], ["a", "b", "c"])
    expected = model(inputs).numpy()[0]
    np.testing.assert_allclose(
        adapted.predict(inputs["query_x"][0], verbose=0), expected, atol=1e-5
    )
    adapted.save(tmp_path / "adapted.keras")
    model.fit(tf.data.Dataset.from_tensors((inputs, query_y)), verbose=0)
    reloaded = keras.models.load_model(tmp_path / "adapted.keras")
    for loaded in (adapted, reloaded):
        predictions = loaded.predict(inputs["query_x"][0], verbose=0)
        np.testing.assert_allclose(predictions, expected, atol=1e-5)
        assert loaded.class_names == ["a", "b", "c"]

    with pytest.raises(ValueError, match="has no inner steps"):
        model.predict_by_step(inputs, 3)


def test_a_learner_must_supply_both_functions():
    with pytest.raises(NotImplementedError, match="MetaLearner must implement adapt_task"):
        MetaLearner()(episodes()[0])


# === Bad input ===


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_x": None}, r"missing: \['query_x'\]"),
        ({"supports": np.zeros(3)}, r"unknown: \['supports'\]"),
        ({"support_x": np.zeros((6, 4))}, r"leading dimension of 1"),
        ({"query_x": np.zeros((3, 9, 5))}, "support_x and query_x do not fit together"),
        ({"support_y": np.zeros((3, 5))}, "support_x and support_y do not fit together"),
        ({"support_y": np.zeros(3)}, r"'support_y': \(3,\).*leading dimension of 1"),
        ({"support_mask": np.ones((3, 7))}, "support_x and support_mask do not fit"),
        ({"query_mask": np.ones((2, 9))}, "query_x and query_mask do not fit"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    inputs = {**episodes()[0], **change}
    inputs = {k: v for k, v in inputs.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        learner()(inputs)


def test_an_input_that_is_no_dictionary_is_refused():
    with pytest.raises(ValueError, match="takes a dictionary with support_x"):
        learner()(np.zeros((3, 6, 4)))


def test_class_weights_are_refused():
    """Keras would weigh whole tasks by the label of one query, silently."""
    inputs, query_y = episodes()
    data = tf.data.Dataset.from_tensors((inputs, query_y))
    for train in (
        lambda: learner().fit(data, class_weight={0: 2.0}, verbose=0),
        lambda: learner().train_on_batch(inputs, query_y, class_weight={0: 2.0}),
        lambda: learner().train_on_batch(inputs, query_y, None, {0: 2.0}),
    ):
        with pytest.raises(ValueError, match="takes no class_weight"):
            train()


# === Memory ===

PEAK_OF_TWO_STEPS = """
import re, sys
import keras, numpy as np, tfmeta
n_tasks = int(sys.argv[1])
step = {"ours": tfmeta.MetaLearner.train_step, "default": keras.Model.train_step}[sys.argv[2]]
class Learner(tfmeta.MAML):
    train_step = step
learner = Learner(tfmeta.backbones.conv4(5, (28, 28, 1)), inner_learning_rate=0.1, inner_steps=2)
learner.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
x = np.random.rand(n_tasks, 15, 28, 28, 1).astype("float32")
y = np.tile(np.arange(15) % 5, (n_tasks, 1))
for _ in range(2):
    learner.train_on_batch({"support_x": x[:, :5], "support_y": y[:, :5], "query_x": x}, y)
# The peak since the program began; getrusage would count the parent's, too.
print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read()).group(1))
"""


def peak_memory(n_tasks, step):
    command = [sys.executable, "-c", PEAK_OF_TWO_STEPS, str(n_tasks), step]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.large
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_memory_does_not_grow_with_the_meta_batch():
    few, many, by_default = (peak_memory(*a) for a in ((8, "ours"), (64, "ours"), (64, "default")))
    assert many < 1.15 * few
    assert by_default > 1.15 * few  # So that this test could fail.


@pytest.mark.large
def test_a_transductive_task_exports_as_a_saved_model(tmp_path):
    learner = tfmeta.MAML(tfmeta.backbones.conv4(2, (8, 8, 1), 4), inner_learning_rate=0.1)
    x = np.random.default_rng(0).random((4, 8, 8, 1), dtype="float32")
    adapted = learner.adapt(x, np.array([0, 1, 0, 1]))
    expected = adapted(x)
    adapted.save(tmp_path / "task.keras")
    for name, model in (("a", adapted), ("b", keras.models.load_model(tmp_path / "task.keras"))):
        model(x)
        model.export(tmp_path / name, verbose=False)
        loaded = tf.saved_model.load(str(tmp_path / name))
        np.testing.assert_allclose(loaded.serve(x), expected, atol=1e-5)
