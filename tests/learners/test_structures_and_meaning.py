"""What networks take and return, and what their outputs and a task's labels mean."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta.learners.output_kinds import by_class

RNG = np.random.default_rng(0)
L, LOSSES = keras.layers, keras.losses
NETWORK = ["maml", "meta_sgd", "maml_plus_plus", "meta_lstm", "reptile"]
ENCODER = ["prototypical_network", "matching_network", "relation_network"]
X = RNG.normal(size=(6, 4)).astype("float32")


def dense(n_outputs, activation=None):
    return keras.Sequential([keras.Input((4,)), L.Dense(n_outputs, activation)])


def tasks(labels, query_labels=None, n_tasks=2):
    labels = np.asarray(labels)
    x = RNG.normal(size=(n_tasks, len(labels), 4)).astype("float32")
    labels = np.stack([labels] * n_tasks)
    queries = labels if query_labels is None else np.stack([np.asarray(query_labels)] * n_tasks)
    return {"support_x": x, "support_y": labels, "query_x": x[:, : queries.shape[1]]}, queries


# === One input, one output ===


def two_inputs():
    a, b = keras.Input((4,)), keras.Input((2,))
    return keras.Model([a, b], L.Dense(3)(L.Concatenate()([a, b])))


def inputs_by_name():
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    return keras.Model({"a": a, "b": b}, L.Dense(3)(L.Concatenate()([a, b])))


def outputs(structure):
    x = keras.Input((4,))
    return keras.Model(x, structure(L.Dense(3)(x), L.Dense(1)(x)))


class TwoArguments(keras.Model):
    def call(self, x, context):
        return x + context


WRONG = {
    "two inputs": (two_inputs, "take one input"),
    "inputs by name": (inputs_by_name, "take one input"),
    "call of two": (TwoArguments, "also takes context"),
    "two outputs": (lambda: outputs(lambda a, b: [a, b]), "return one output"),
    "outputs by name": (lambda: outputs(lambda a, b: {"a": a, "b": b}), "return one output"),
    "nested outputs": (lambda: outputs(lambda a, b: [a, [b, {"c": a}]]), "return one output"),
    "a list of one output": (lambda: outputs(lambda a, b: [a]), "return one output"),
}


@pytest.mark.parametrize("make, message", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("name", [*NETWORK, *ENCODER])
def test_other_inputs_or_outputs_than_one_are_refused_by_the_constructor(name, make, message):
    with pytest.raises(ValueError, match=message):
        tfmeta.learners.get(name)(make())


@pytest.mark.parametrize("make, message", WRONG.values(), ids=WRONG)
def test_anil_and_cavia_and_the_relation_module_are_as_strict(make, message):
    with pytest.raises(ValueError, match=message):
        tfmeta.ANIL(make(), 3)
    with pytest.raises(ValueError, match=message):
        tfmeta.ANIL(dense(5), make())
    with pytest.raises(ValueError, match=message):
        tfmeta.RelationNetwork(dense(5), make())


class Subclassed(keras.Model):
    def __init__(self, structure):
        super().__init__()
        self.structure, self.dense = structure, L.Dense(3)

    def call(self, x):
        return self.structure(self.dense(x))


@pytest.mark.parametrize("structure", [lambda y: [y, y], lambda y: {"y": y}, lambda y: (y,)])
@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize("name", ["maml", "prototypical_network"])
def test_outputs_of_a_subclass_are_refused_when_it_is_called(name, is_built, structure):
    network = Subclassed(structure)
    if is_built:
        network(X)
    with pytest.raises(ValueError, match="return one output"):
        tfmeta.learners.get(name)(network).adapt(X, np.arange(6) % 3)


class TakesNames(keras.Model):
    def call(self, x):
        return x["a"]


def test_a_subclass_that_takes_a_structure_is_told_of_when_it_is_built():
    with pytest.raises(ValueError, match=r"must take one input, a tensor of examples"):
        tfmeta.MAML(TakesNames()).adapt(X, np.arange(6) % 3)


@pytest.mark.parametrize("x", [{"a": X, "b": X}, [X, X[:, :2]], tf.data.Dataset.from_tensors(X)])
def test_structured_examples_are_refused(x):
    learner = tfmeta.MAML(dense(3))
    with pytest.raises(ValueError, match=r"support_x must be one array of numbers.*got a \w+"):
        learner.adapt(x, np.arange(6) % 3)
    if isinstance(x, tf.data.Dataset):
        return  # Keras itself refuses it.
    inputs, _ = tasks(np.arange(6) % 3)
    with pytest.raises(ValueError, match=r"query_x must be one tensor.*got a \w+"):
        learner({**inputs, "query_x": x})


def test_structured_queries_of_a_learned_task_are_refused():
    encoder = keras.Sequential([keras.Input((4,)), L.BatchNormalization()])
    adapted = tfmeta.PrototypicalNetwork(encoder).adapt(X, np.arange(6) % 3)
    with pytest.raises(ValueError, match=r"must be one tensor \[Q, \*x\].*got a dict"):
        adapted({"a": X})


# === Two classes in one column ===

BINARY = {
    "binary_logits": (LOSSES.BinaryCrossentropy(from_logits=True), None),
    "binary_scores": ("binary_crossentropy", "sigmoid"),
}


@pytest.mark.parametrize("kind", BINARY)
def test_one_column_for_two_classes_is_a_classifier(kind, tmp_path):
    loss, activation = BINARY[kind]
    learner = tfmeta.MAML(
        dense(1, activation), inner_learning_rate=1.0, inner_steps=9, inner_loss=loss
    )
    assert (learner.output_kind, learner.n_classes) == (kind, 2)
    x = np.where(np.arange(6)[:, None] % 2, 1, -1) * np.ones((6, 4), "float32")
    y = np.arange(6) % 2
    for labels in (y, y.astype(bool), y[:, None].astype("float32")):
        adapted = learner.adapt(x, labels, ["even", "odd"] if labels is y else None)
        assert adapted.output_kind == kind
        columns, plain_kind = by_class(adapted.predict(x, verbose=0), kind)
        assert plain_kind == kind.removeprefix("binary_")
        np.testing.assert_array_equal(np.argmax(columns, axis=-1), y)
    for labels in ([0, 1, 2, 0, 1, 2], [0, 0.5, 1, 0, 1, 0], np.ones((6, 2))):
        with pytest.raises(ValueError, match="Labels must be 0 or 1"):
            learner.adapt(x, np.asarray(labels))
    with pytest.raises(ValueError, match="list of 2 strings"):
        learner.adapt(x, y, ["even", "odd", "neither"])


def test_evaluate_measures_the_accuracy_of_one_column():
    data = tfmeta.data.load((np.r_[X, X + 9], np.repeat([0, 1], 6)))
    learner = tfmeta.MAML(
        dense(1), inner_loss=LOSSES.BinaryCrossentropy(from_logits=True), inner_learning_rate=1.0
    )
    inputs, query_y = next(iter(data.episodes(2, 2, 3, meta_batch_size=2)))
    episodes = tf.data.Dataset.from_tensors((inputs, query_y))
    result = tfmeta.evaluate(learner, episodes, 2, inner_steps=1)
    expected = ((learner(inputs).numpy()[..., 0] > 0) == query_y.numpy()).mean(axis=1)
    assert result.metric == "accuracy"
    np.testing.assert_allclose(result.values, expected)
    np.testing.assert_allclose(result.by_inner_step[1], result.values)


def test_keras_accuracy_of_one_column_of_logits_has_the_threshold_0():
    learner = tfmeta.MAML(dense(1), inner_loss=LOSSES.BinaryCrossentropy(from_logits=True))
    learner.compile("sgd", weighted_metrics=["accuracy"], run_eagerly=True)
    inputs, query_y = tasks([0, 1, 0, 1, 0, 1])
    measured = learner.test_on_batch(inputs, query_y, return_dict=True)
    expected = np.mean((learner(inputs).numpy()[..., 0] > 0) == query_y)
    assert measured["accuracy"] == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"query_y must be from 0 to 1, for .*; got 2"):
        learner.train_on_batch(inputs, 2 * query_y)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: tfmeta.MAML(dense(3), inner_loss="binary_crossentropy"), "with one output"),
        (
            lambda: tfmeta.MAML(dense(1)).adapt(X, np.zeros(6, int)),
            "one output, which tells no classes apart",
        ),
        (
            lambda: tfmeta.ANIL(dense(5), 1)(tasks(np.zeros(6, int))[0]),
            "one output, which tells no classes apart",
        ),
        (lambda: tfmeta.MAML(dense(1), inner_loss="hinge"), "compares margins"),
    ],
)
def test_losses_that_do_not_fit_the_outputs_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# === One-hot labels ===


def test_one_hot_labels_are_labels():
    loss = LOSSES.CategoricalCrossentropy(from_logits=True)
    learner = tfmeta.MAML(dense(3), inner_loss=loss, inner_learning_rate=0.5)
    sparse = tfmeta.MAML(learner.network, inner_learning_rate=0.5)
    y = np.arange(6) % 3
    assert learner.output_kind == "logits"
    expected = sparse.adapt(X, y)(X)
    for labels in (y, np.eye(3)[y], np.eye(3, dtype="int64")[y]):
        np.testing.assert_allclose(learner.adapt(X, labels)(X), expected, rtol=1e-5)
    for wrong in (np.eye(4)[y], np.ones((6, 3))):
        with pytest.raises(ValueError, match=r"one-hot vectors \[S, 3\]"):
            learner.adapt(X, wrong)
    inputs, query_y = tasks(np.eye(3)[y])
    result = tfmeta.evaluate(learner, tf.data.Dataset.from_tensors((inputs, query_y)), 2)
    assert result.metric == "accuracy"
    learner.compile("sgd", run_eagerly=True)
    assert np.isfinite(learner.train_on_batch(inputs, query_y))


# === Targets of regression ===


@pytest.mark.parametrize("n_outputs, shapes", [(1, [(6, 2), (6, 1, 1)]), (2, [(6,), (6, 1)])])
def test_targets_of_another_shape_are_not_broadcast(n_outputs, shapes):
    learner = tfmeta.MAML(dense(n_outputs), inner_loss="mse")
    learner.compile("sgd", run_eagerly=True)
    right = np.zeros((6, n_outputs), "float32")
    for shape in shapes:
        wrong = np.zeros(shape, "float32")
        with pytest.raises(ValueError, match="support_y must have the predictions' shape"):
            learner.adapt(X, wrong)
        with pytest.raises(ValueError, match="support_y"):
            learner.train_on_batch(*tasks(wrong, right))
        for use in (learner.train_on_batch, learner.test_on_batch):
            with pytest.raises(ValueError, match="query_y must have the predictions' shape"):
                use(*tasks(right, wrong))
        with pytest.raises(ValueError, match="targets of the queries must have the shape"):
            tfmeta.evaluate(learner, tf.data.Dataset.from_tensors(tasks(right, wrong)), 2)


def test_a_loss_of_ones_own_may_compare_other_shapes():
    """A mean and a variance are predicted for one target."""

    def likelihood(y, predictions):
        mean, scale = predictions[..., :1], keras.ops.exp(predictions[..., 1:])
        return keras.ops.mean(keras.ops.square((y - mean) / scale) + predictions[..., 1:], axis=-1)

    learner = tfmeta.MAML(dense(2), inner_loss=likelihood)
    learner.compile("sgd", run_eagerly=True)
    inputs, query_y = tasks(np.zeros((6, 1), "float32"))
    assert np.isfinite(learner.train_on_batch(inputs, query_y))
    assert learner.adapt(X, np.zeros((6, 1)))(X).shape == (6, 2)


# === Labels, and outputs ===


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_more_classes_than_outputs_are_one_sentence(run_eagerly):
    learner = tfmeta.MAML(dense(3))
    learner.compile("sgd", run_eagerly=run_eagerly)
    message = (
        r"The labels support_y must be from 0 to 2, for the network tells 3 classes apart; got"
    )
    before = learner.get_weights()
    too_many = tasks([0, 1, 2, 3, 0, 1], [0, 1, 2])
    for use in (learner.train_on_batch, learner.test_on_batch):
        with pytest.raises(ValueError, match=message + r" 3\."):
            use(*too_many)
    with pytest.raises(ValueError, match=message + r" 3\."):
        learner(too_many[0])
    with pytest.raises(ValueError, match=message + r" -1\."):
        learner.train_on_batch(*tasks([0, 1, 2, -1, 0, 1], [0, 1, 2]))
    with pytest.raises(ValueError, match="query_y must be from 0 to 2"):
        learner.train_on_batch(*tasks([0, 1, 2, 0, 1, 2], [0, 1, 2, 3]))
    for old, new in zip(before, learner.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("label", [6, 2**32, 2**40])
@pytest.mark.parametrize("name", ["prototypical_network", "matching_network"])
def test_the_cost_of_a_label_does_not_grow_with_its_value(name, label):
    """2**32 would become 0 as int32, and 2**40 a matrix of a terabyte."""
    learner = tfmeta.learners.get(name)(dense(5))
    with pytest.raises(ValueError, match=r"each class needs a support example; got \d+"):
        learner(tasks([0, 1, label, 0, 1, 0])[0])
    with pytest.raises(ValueError, match=rf"Every class from 0 to {label} needs a support example"):
        learner.adapt(X, np.array([0, 1, label, 0, 1, 0]))


@pytest.mark.parametrize(
    "dtype, largest", [("uint8", 255), ("int8", 127), ("int16", 32767), ("uint16", 65535)]
)
def test_the_largest_label_of_a_type_is_not_the_number_of_classes(dtype, largest):
    learner = tfmeta.PrototypicalNetwork(dense(5))
    message = f"Every class from 0 to {largest} needs a support example; none has the labels 2, 3,"
    with pytest.raises(ValueError, match=message):
        learner.adapt(X, np.array([0, 1, largest, 0, 1, 0], dtype))


def test_as_many_classes_as_a_type_has_are_learned():
    x = np.arange(256, dtype="float32")[:, None] * np.ones(4, "float32")
    adapted = tfmeta.PrototypicalNetwork(keras.Sequential([keras.Input((4,)), L.Identity()])).adapt(
        x, np.arange(256, dtype="uint8")
    )
    np.testing.assert_array_equal(adapted.predict(x, verbose=0).argmax(axis=-1), np.arange(256))


@pytest.mark.parametrize("names", ["abc", ["a", "b"], ["a", "b", 3], ["a", "b", "c", "d"]])
def test_class_names_are_one_string_for_each_class(names):
    for learner in (tfmeta.MAML(dense(3)), tfmeta.PrototypicalNetwork(dense(5))):
        with pytest.raises(ValueError, match="class_names must be a list of 3 strings"):
            learner.adapt(X, np.arange(6) % 3, names)


def test_a_task_may_have_fewer_classes_than_outputs():
    adapted = tfmeta.MAML(dense(3)).adapt(X, np.arange(6) % 2, ["a", "b"])
    assert adapted.class_names == ["a", "b"]


def test_a_matching_network_for_values_says_so():
    learner = tfmeta.MatchingNetwork(dense(5))
    targets = RNG.normal(size=(6, 2)).astype("float32")
    assert learner.adapt(X, targets).output_kind == "values"
    assert learner.adapt(X, np.arange(6) % 3).output_kind == "logits"
    result = tfmeta.evaluate(learner, tf.data.Dataset.from_tensors(tasks(targets)), 2)
    assert result.metric == "mse"
