"""Keras's methods of a learner: compiled losses, endless data, exports, pickles, lone queries."""

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import DENSE, N_WAY, dense_encoder, make_learner, plain_network

import tfmeta

RNG = np.random.default_rng(0)
LOSSES = keras.losses
X, Y = RNG.normal(size=(6, 4)).astype("float32"), np.arange(6) % 3


def softmax_network():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(N_WAY, "softmax")])


# === compile ===


@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda: tfmeta.MAML(plain_network(N_WAY)), "SparseCategoricalCrossentropy"),
        (lambda: make_learner("prototypical_network", DENSE), "SparseCategoricalCrossentropy"),
        (lambda: make_learner("relation_network", DENSE), "OneHotSquaredError"),
        (lambda: tfmeta.MAML(plain_network(), inner_loss="mse"), "mean_squared_error"),
        (
            lambda: tfmeta.MAML(plain_network(), inner_loss=LOSSES.BinaryCrossentropy(True)),
            "BinaryCrossentropy",
        ),
    ],
)
def test_without_a_loss_a_learner_takes_its_own(make, kind, tmp_path):
    learner = make()
    learner.compile("adam")
    assert kind in (type(learner.loss).__name__, getattr(learner.loss, "__name__", ""))
    learner.build({"support_x": (None, None, 4)})
    learner.optimizer.build(learner.trainable_variables)
    learner.save(tmp_path / "learner.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.compiled
    assert type(loaded.loss) is type(learner.loss)


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "crossentropy",
        LOSSES.SparseCategoricalCrossentropy(),
        LOSSES.sparse_categorical_crossentropy,
        LOSSES.CategoricalCrossentropy(),
    ],
)
def test_a_loss_of_probabilities_is_refused_for_logits(loss):
    for learner in (tfmeta.MAML(plain_network(N_WAY)), make_learner("matching_network", DENSE)):
        with pytest.raises(ValueError, match=r"are logits, but the loss .* takes probabilities"):
            learner.compile("sgd", loss)


def test_losses_that_fit_are_taken():
    of_scores = tfmeta.MAML(softmax_network(), inner_loss="sparse_categorical_crossentropy")
    of_scores.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(
        ValueError, match=r"are probabilities or scores, but the loss .* takes logits"
    ):
        of_scores.compile("sgd", LOSSES.SparseCategoricalCrossentropy(from_logits=True))
    binary = tfmeta.MAML(plain_network(), inner_loss=LOSSES.BinaryCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="one column for two classes"):
        binary.compile("sgd", LOSSES.SparseCategoricalCrossentropy(from_logits=True))
    learner = tfmeta.MAML(plain_network(N_WAY))
    learner.compile("sgd", lambda y, z: keras.ops.mean(z, axis=-1), None, ["accuracy"])
    assert learner.compiled


# === Data without end ===


def endless():
    return tfmeta.data.load("sinusoid").episodes(n_shot=2, n_query=2, meta_batch_size=2)


def test_data_without_end_need_a_number_of_steps():
    learner = tfmeta.MAML(tfmeta.backbones.mlp(hidden_units=(2,)), inner_loss="mse")
    learner.compile("sgd")
    for steps, use in {
        "steps_per_epoch": lambda: learner.fit(endless()),
        "validation_steps": lambda: learner.fit(
            endless(), steps_per_epoch=1, validation_data=endless()
        ),
        "steps": lambda: learner.evaluate(endless()),
    }.items():
        with pytest.raises(ValueError, match=rf"no end: .*, {steps}=\.$"):
            use()
    with pytest.raises(ValueError, match=r"no end: .*, steps=\.$"):
        learner.predict(endless().map(lambda inputs, _: inputs).repeat())
    with pytest.raises(ValueError, match=r"validation_steps=\.$"):
        learner.fit(endless().take(1), validation_data=(endless(), None))


def test_data_with_an_end_or_a_number_of_steps_are_taken():
    learner = tfmeta.MAML(tfmeta.backbones.mlp(hidden_units=(2,)), inner_loss="mse")
    learner.compile("sgd")
    history = learner.fit(
        endless(), None, None, steps_per_epoch=1, validation_data=endless(), validation_steps=1,
        verbose=0, shuffle=False,
    )  # fmt: skip
    assert np.isfinite(history.history["val_loss"]).all()
    assert np.isfinite(learner.evaluate(endless().take(2), verbose=0))
    assert learner.predict(endless(), steps=2, verbose=0).shape == (4, 2, 1)
    with pytest.raises(ValueError, match="must be pairs"):
        learner.fit(endless().map(lambda inputs, _: inputs).take(1))


# === Exports and pickles ===


@pytest.mark.parametrize("name", ["maml", "prototypical_network"])
def test_data_of_unknown_length_count_no_step_too_many(name):
    """Keras 3.15 takes one more step, in which what needs no meta-batch is done."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, 6, 4)).astype("float32")
    y = np.tile(np.arange(6) % 3, (3, 2, 1))
    known = tf.data.Dataset.from_tensor_slices(
        ({"support_x": x, "support_y": y, "query_x": x[:, ::-1]}, y)
    )
    unknown = tf.data.Dataset.from_generator(
        lambda: iter(known), output_signature=known.element_spec
    )
    assert unknown.cardinality() == tf.data.UNKNOWN_CARDINALITY
    results = []
    for data in (known, unknown):
        keras.utils.set_random_seed(0)
        learner = make_learner(name, DENSE)
        learner.compile("sgd", metrics=["accuracy"])
        history = learner.fit(data, verbose=0).history
        assert int(learner.optimizer.iterations) == 3
        results.append([history["loss"], history["accuracy"], learner.evaluate(data, verbose=0)])
    assert results[0] == results[1]


def test_export_says_how_a_learner_is_exported(tmp_path):
    with pytest.raises(NotImplementedError, match=r"tfmeta\.serving\.export\(learner, folder\)"):
        make_learner("maml", DENSE).export(tmp_path / "learner")


@pytest.mark.parametrize("batch_norm", ["transductive", "support"])
@pytest.mark.parametrize("name", ["maml", "prototypical_network", "anil"])
def test_a_pickle_of_a_task_keeps_its_classes(name, batch_norm):
    adapted = make_learner(name, DENSE, batch_norm=batch_norm).adapt(X, Y, ["a", "b", "c"])
    for again in (pickle.loads(pickle.dumps(adapted)), copy.deepcopy(adapted)):
        assert (again.class_names, again.output_kind) == (["a", "b", "c"], "logits")
        np.testing.assert_allclose(again(X), adapted(X), rtol=1e-6)


# === Queries that are normalised together ===


def test_a_lone_query_of_a_transductive_task_warns_once():
    learner = tfmeta.PrototypicalNetwork(dense_encoder())
    for use in (
        lambda adapted: adapted.predict(X[:1], verbose=0),
        lambda adapted: adapted(X[:1]),
        lambda adapted: adapted.predict(X, batch_size=5, verbose=0),
    ):
        adapted = learner.adapt(X, Y)
        adapted.predict(X, verbose=0)
        with pytest.warns(UserWarning, match=r'batch_norm="transductive".*normalised by itself'):
            use(adapted)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            use(adapted)


@pytest.mark.parametrize("encoder", [dense_encoder, lambda: plain_network(5)])
def test_other_queries_do_not_warn(encoder):
    mode = "support" if encoder is dense_encoder else "transductive"
    adapted = tfmeta.PrototypicalNetwork(encoder(), batch_norm=mode).adapt(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted.predict(X[:1], verbose=0)


# === Several devices ===


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipped_gradients_are_refused_on_several_replicas(clip):
    from tfmeta.learners import meta_training

    learner = tfmeta.MAML(plain_network(N_WAY))
    learner.compile(keras.optimizers.SGD(0.1, **{clip: 1.0}))
    meta_training.check_optimizer_of_replicas(learner.optimizer, 1)
    with pytest.raises(ValueError, match=rf"Keras clips gradients \({clip}\) before it sums"):
        meta_training.check_optimizer_of_replicas(learner.optimizer, 2)


@pytest.mark.parametrize(
    "option",
    [
        {"gradient_accumulation_steps": 2},
        {"use_ema": True, "ema_overwrite_frequency": 2},
    ],
)
def test_what_keras_does_within_a_condition_is_refused_on_several_replicas(option):
    from tfmeta.learners import meta_training

    learner = tfmeta.MAML(plain_network(N_WAY))
    learner.compile(keras.optimizers.SGD(0.1, **option))
    meta_training.check_optimizer_of_replicas(learner.optimizer, 1)
    with pytest.raises(ValueError, match=f"Keras has no {list(option)[-1]} on several replicas"):
        meta_training.check_optimizer_of_replicas(learner.optimizer, 2)
