"""The gate refuses what must not be published, names it, and lets through what may be."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta.serving import ServableError, agreement, export, gate, operations, signatures
from tfmeta.serving.loaded_servable import LoadedServable
from tfmeta.serving.warmup import FILE, Request, read_requests, write_requests

SHAPE = (14, 14, 1)


def dense(policy="float32"):
    x = keras.Input((3,))
    model = keras.Sequential([keras.layers.Dense(n, dtype=policy) for n in (8, 2)])
    return keras.Model(x, model(x))


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """A servable of two dense layers."""
    folder = tmp_path_factory.mktemp("servables") / "dense"
    return export(dense(), folder, output_kind="logits")


# === Rounding ===


@pytest.mark.parametrize(
    ("compute_dtype", "allowed", "refused"),
    [("float32", 5e-6, 3e-4), ("float16", 0.01, 0.03), ("bfloat16", 0.1, 0.3)],
)
def test_how_far_answers_may_differ_depends_on_what_the_model_computes_in(
    version, compute_dtype, allowed, refused
):
    request, servable = read_requests(version)[-1], LoadedServable.load(version, compute_dtype)
    answer = servable.answer(request)["logits"]
    scale = np.abs(answer).max()
    gate.check_agreement(servable, [(request, {"logits": answer + allowed * scale})])
    with pytest.raises(ServableError, match="must predict as the model that was exported") as error:
        gate.check_agreement(servable, [(request, {"logits": answer + refused * scale})])
    assert "depend" not in str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_servable_says_what_it_computes_in(dtype, tmp_path):
    model = dense(dtype if dtype == "float32" else f"mixed_{dtype}")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", model.call, [keras.InputSpec(shape=(None, 3), dtype="float32")])
    archive.write_out(tmp_path / "1", verbose=False)
    reachable = operations.reachable_nodes(tmp_path / "1")
    assert operations.compute_dtype(reachable) == dtype


# Answers for three tasks, which range from 0 to 1, and slack of 0.01. The cap is 0.05.
@pytest.mark.parametrize(
    ("moved", "is_allowed"),
    [
        ([0.009, 0.009, 0.009], True),
        ([0.04, 0.009, 0.009], True),  # One task jumped at an edge.
        ([0.04, 0.04, 0.0], False),  # Most tasks do not jump.
        ([0.06, 0.0, 0.0], False),  # No task jumps that far.
        ([np.nan, 0.0, 0.0], False),
    ],
)
def test_tasks_may_jump_one_by_one_and_not_far(moved, is_allowed):
    expected = np.tile(np.linspace(0, 1, 4), (3, 2, 1))
    answer = expected + np.reshape(moved, (3, 1, 1)) * np.array([[0, 1, 0, 0], [1, 1, 0, 0]])
    arguments = ("logits", answer, expected, "must not", "float32", 0.01)
    if is_allowed:
        agreement.difference_by_task(*arguments)
    else:
        with pytest.raises(ServableError, match="must not"):
            agreement.difference_by_task(*arguments)


def test_slack_is_what_rounding_does_but_at_most_a_part_of_the_range():
    x = np.linspace(0, 1, 8, dtype="float32")[None]

    def slack(function):
        servable = LoadedServable("here", {"ask": lambda support_x: {"y": function(support_x)}})
        request = Request("ask", {"support_x": x})
        answer = servable.answer(request)
        return agreement.measured_slack(servable, request, answer, "support_x", "float32")["y"]

    assert slack(lambda x: x) == pytest.approx(1e-4)  # of the largest value
    assert 3e-4 < slack(lambda x: x + tf.sin(1e3 * x) / 10) < 0.01
    assert slack(lambda x: tf.sin(1e9 * x)) == pytest.approx(0.05 * 2, rel=0.3)


# === What fails ===


def test_a_signature_that_fails_is_named(tmp_path):
    model = dense()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    message = "'serving_default' fails on a warmup request: the predictions for x must be finite"
    with pytest.raises(ServableError, match=message):
        export(model, tmp_path / "nan", output_kind="logits")
    assert not (tmp_path / "nan").exists()


# === What an answer may depend on ===


class LooksAside(keras.layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=0)


class CountsPadding(tfmeta.PrototypicalNetwork):
    """Takes padding for examples."""

    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        return super().adapt_task(support_x, support_y, None, training)


class NoticesPadding(tfmeta.PrototypicalNetwork):
    """Never looks into the padding, but how much there is changes its answers."""

    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        if support_mask is not None:
            support_x *= keras.ops.mean(support_mask)
        return super().adapt_task(support_x, support_y, support_mask, training)


class NoticesPaddingInSomeTasks(tfmeta.PrototypicalNetwork):
    """Is right for about half of the tasks."""

    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        if support_mask is not None:
            scale = tf.where(support_x[0, 0] < 0.5, tf.reduce_mean(support_mask), 1.0)
            support_x *= scale
        return super().adapt_task(support_x, support_y, support_mask, training)


class Chaotic(keras.layers.Layer):
    """Enlarges rounding to any size."""

    def call(self, x):
        return keras.ops.sin(1e8 * x)


def encoder(*layers):
    return keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(4)])


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (
            lambda: tfmeta.PrototypicalNetwork(encoder(LooksAside()), batch_norm="support"),
            "a query alone and beside others differ",
        ),
        pytest.param(
            *(lambda: CountsPadding(encoder()), "padding in the support set differ"),
            marks=pytest.mark.large,
        ),
        pytest.param(
            lambda: NoticesPadding(encoder()),
            "with and without padding in the support set differ",
            marks=pytest.mark.large,
        ),
        # These passed when only the least different task was compared, and when slack had no cap.
        (
            lambda: NoticesPaddingInSomeTasks(encoder()),
            "with and without padding in the support set differ",
        ),
        pytest.param(
            lambda: NoticesPadding(encoder(Chaotic())),
            "with and without padding in the support set differ",
            marks=pytest.mark.large,
        ),
    ],
    ids=["other queries", "counts padding", "notices", "notices in some tasks", "ill-conditioned"],
)
def test_a_learner_that_depends_on_what_it_must_not_is_not_published(learner, message, tmp_path):
    with pytest.raises(ServableError, match=f"'adapt_and_predict' .* {message}"):
        export(learner(), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


@pytest.mark.large
def test_a_transductive_servable_must_be_allowed_but_ignores_padding(tmp_path):
    learner = tfmeta.PrototypicalNetwork(encoder(keras.layers.BatchNormalization()))
    version = export(learner, tmp_path / "servable", allow_transductive=True)
    with pytest.raises(ServableError, match="a query alone and beside others differ"):
        gate.check(version)
    assert gate.check(version, allow_transductive=True)


@pytest.mark.large
def test_rounding_that_inner_steps_enlarge_is_not_refused():
    keras.utils.set_random_seed(0)
    network = tfmeta.backbones.conv4(5, SHAPE, 8)
    learner = tfmeta.MAML(network, inner_learning_rate=0.4, inner_steps=5, batch_norm="support")
    signature = signatures.learner_signatures(learner, SHAPE, (), 5, None)["adapt_and_predict"]
    in_memory = LoadedServable(
        "here", {"adapt_and_predict": lambda **inputs: signature.function(inputs)}
    )
    rng = np.random.default_rng(0)
    for _ in range(3):
        for variable in learner.network.trainable_variables:
            if len(variable.shape) > 1:
                variable.assign(rng.normal(0, 0.15, variable.shape))
        inputs = {
            "support_x": rng.random((3, 10, *SHAPE), "float32"),
            "support_y": np.tile(np.arange(10) % 5, (3, 1)),
            "support_mask": np.ones((3, 10), "float32"),
            "query_x": rng.random((3, 3, *SHAPE), "float32"),
        }
        request = Request("adapt_and_predict", inputs)
        gate._check_tasks(in_memory, request, independent=True)  # Raises nothing.


# === What is broken ===


def warmup(*requests):
    def write(folder):
        shutil.rmtree(folder / "assets.extra")
        write_requests(folder, "dense", requests)

    return write


def record(content):
    def write(folder):
        with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
            writer.write(content)

    return write


ROWS = np.ones((1, 3), "float32")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "saved_model.pb").write_bytes(b""), "saved_model.pb is broken"),
        (lambda f: (f / "saved_model.pb").write_bytes(b"garbage"), "saved_model.pb is broken"),
        (lambda f: shutil.rmtree(f / "variables"), "cannot be loaded: .*variables"),
        (lambda f: (f / FILE).write_bytes(b"garbage" * 9), f"{FILE} is broken"),
        (lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:-9]), f"{FILE} is broken"),
        (record(b"garbage"), f"{FILE} is broken"),
        (lambda f: (f / FILE).unlink(), f"has no warmup requests, which {FILE} should hold"),
        (
            warmup(Request("ask", {"x": ROWS})),
            f"{FILE} holds a request to the signature 'ask', but the servable has serving_default",
        ),
        (
            warmup(Request("serving_default", {"y": ROWS})),
            f"{FILE} holds a request to the signature 'serving_default' with y, but it takes x",
        ),
        (
            warmup(Request("serving_default", {"x": ROWS.astype("float64")})),
            "'serving_default' fails on a warmup request: .*float",
        ),
    ],
)
def test_a_broken_servable_s_file_is_named(version, damage, message, tmp_path):
    folder = shutil.copytree(version, tmp_path / "1")
    damage(folder)
    with pytest.raises(ServableError, match=message):
        gate.check(folder)


def test_folders_that_are_not_servables_are_told_apart(version, tmp_path):
    for folder, message in (
        (tmp_path / "nothing", "does not exist"),
        (version / "saved_model.pb", "is a file"),
        (
            version.parent.parent,
            f"is not a servable, but contains servables: give .*{version.parent}",
        ),
        (tmp_path, "is not a servable: it has no saved_model.pb"),
    ):
        with pytest.raises(ValueError, match=message):
            gate.check(folder)
    assert gate.check(version) == gate.check(version.parent)
