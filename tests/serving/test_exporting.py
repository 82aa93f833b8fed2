"""What is exported answers as the model in memory does, without TensorFlow's Python."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from c_api import InvalidArgument
from c_api_worker import Worker

import tfmeta
from tfmeta import backbones
from tfmeta.data import ImageFormat
from tfmeta.serving import ServableError, check, export

RNG = np.random.default_rng(0)
SHAPE = (14, 14, 1)


def network():
    return backbones.conv4(5, SHAPE, 8)


def encoder():
    return backbones.conv4(None, SHAPE, 8)


LEARNERS = {
    "maml": lambda: tfmeta.MAML(network(), 0.1, 2, batch_norm="support"),
    "maml_plus_plus": lambda: tfmeta.MAMLPlusPlus(network(), 0.1, 2, batch_norm="support"),
    "meta_sgd": lambda: tfmeta.MetaSGD(network(), 0.1, 2, batch_norm="running"),
    "meta_lstm": lambda: tfmeta.MetaLSTM(network(), inner_steps=2, batch_norm="support"),
    "reptile": lambda: tfmeta.Reptile(network(), inner_steps=2, batch_norm="support"),
    "anil": lambda: tfmeta.ANIL(encoder(), 5, 0.1, 2, batch_norm="support"),
    "cavia": lambda: tfmeta.CAVIA(
        backbones.film_conv4(5, (28, 28, 1), 8), 0.1, 2, batch_norm="support"
    ),
    "prototypical_network": lambda: tfmeta.PrototypicalNetwork(encoder(), batch_norm="support"),
    "matching_network": lambda: tfmeta.MatchingNetwork(encoder(), batch_norm="support"),
    "full_context": lambda: tfmeta.MatchingNetwork(encoder(), True, batch_norm="support"),
    "relation_network": lambda: tfmeta.RelationNetwork(
        backbones.relation_encoder((28, 28, 1), 8), batch_norm="support"
    ),
    "maml_regression": lambda: tfmeta.MAML(backbones.mlp(), 0.01, 2, inner_loss="mse"),
}


def episodes(learner, n_tasks, n_support, n_query, n_way=5):
    """A meta-batch as a request, with some padding in the support set."""
    rng = np.random.default_rng(n_support)
    part = getattr(learner, "encoder", None) or learner.network
    shape = part.input_shape[0] if isinstance(part.input_shape, list) else part.input_shape
    mask = np.ones((n_tasks, n_support), "float32")
    mask[:, n_way:] = rng.random((n_tasks, n_support - n_way)) < 0.8
    y = np.tile(np.arange(n_support) % n_way, (n_tasks, 1)).astype("int64")
    if learner.output_kind == "values":
        y = rng.normal(size=(n_tasks, n_support, 1)).astype("float32")
    return {
        "support_x": rng.random((n_tasks, n_support, *shape[1:]), "float32"),
        "support_y": y,
        "support_mask": mask,
        "query_x": rng.random((n_tasks, n_query, *shape[1:]), "float32"),
    }


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_adapts_in_a_process_without_tensorflow(name, tmp_path):
    learner = LEARNERS[name]()
    key = {"logits": "logits", "scores": "scores", "values": "predictions"}[learner.output_kind]
    before = [v.numpy() for v in learner.variables]
    with Worker(export(learner, tmp_path / name)) as servable:
        for sizes in ((1, 5, 1), (2, 12, 7), (3, 25, 2)):
            inputs = episodes(learner, *sizes)
            expected = np.asarray(learner(inputs, training=False))
            answer = servable.run("adapt_and_predict", inputs)
            # The inner steps enlarge what other kernels round otherwise.
            np.testing.assert_allclose(answer[key], expected, rtol=1e-3, atol=1e-3)
            if key == "logits":
                sums = answer["probabilities"].sum(axis=-1)
                np.testing.assert_allclose(sums, 1, rtol=1e-5)
            # Two clients' requests in one batch: bit for bit what each gets alone.
            alone = [
                servable.run("serving_default", {k: v[t : t + 1] for k, v in inputs.items()})
                for t in range(sizes[0])
            ]
            np.testing.assert_array_equal(
                np.concatenate([a[key] for a in alone]), answer[key], err_msg=str(sizes)
            )
            if "adapt" in servable.signatures:
                queries = inputs.pop("query_x")
                state = servable.run("adapt", inputs)
                later = servable.run("predict", {**state, "query_x": queries})
                np.testing.assert_allclose(later[key], answer[key], rtol=1e-5, atol=1e-6)
    for old, new in zip(before, learner.variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_a_metric_learner_takes_any_number_of_classes(tmp_path):
    learner = LEARNERS["prototypical_network"]()
    few, many = episodes(learner, 1, 8, 4, n_way=2), episodes(learner, 1, 8, 4, n_way=4)
    with Worker(export(learner, tmp_path / "any")) as servable:
        alone = servable.run("adapt_and_predict", few)
        assert alone["logits"].shape == (1, 4, 2)
        both = servable.run(
            "adapt_and_predict", {k: np.concatenate([few[k], many[k]]) for k in few}
        )
    # Beside a task of more classes, a task has further ones that are never predicted.
    assert both["logits"].shape == (2, 4, 4)
    np.testing.assert_allclose(both["logits"][:1, :, :2], alone["logits"], rtol=1e-5)
    assert (both["probabilities"][0, :, 2:] == 0).all()


# === Adapted models ===


@pytest.fixture(scope="module")
def task():
    learner = LEARNERS["maml"]()
    x = RNG.random((6, *SHAPE), "float32")
    return learner.adapt(x, np.array([0, 1, 2, 0, 1, 2]), ["owl", "cat", "yak"])


def test_an_adapted_model_tells_logits_probabilities_and_names(task, tmp_path):
    x = RNG.random((4, *SHAPE), "float32")
    logits = task.predict(x, verbose=0)[:, :3]
    with Worker(export(task, tmp_path / "task")) as servable:
        answer = servable.run("serving_default", {"x": x})
    np.testing.assert_allclose(answer["logits"], logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits), rtol=1e-4)
    assert answer["classes"].tolist() == [[b"owl", b"cat", b"yak"]] * 4


def test_images_are_prepared_as_in_training(task, tmp_path):
    image_format = ImageFormat(14, 14, 1, invert=True)
    pictures = [RNG.integers(0, 256, (n, 40, 3), dtype="uint8") for n in (30, 50)]
    files = [tf.io.encode_png(pictures[0]).numpy(), tf.io.encode_jpeg(pictures[1]).numpy()]
    x = np.stack([image_format.from_bytes(f).numpy() for f in files]).astype("float32") / 255
    with Worker(export(task, tmp_path / "task", image_format=image_format)) as servable:
        expected = servable.run("serving_default", {"x": x})
        images = np.array(files, object)
        answer = servable.run("predict_images", {"images": images})
        np.testing.assert_allclose(answer["logits"], expected["logits"], rtol=1e-4, atol=1e-5)
        for broken in (files[0][:200], files[1][:200], b"GIF89a", b"", b"no image"):
            with pytest.raises(InvalidArgument, match="images"):
                servable.run("predict_images", {"images": np.array([files[0], broken], object)})
        again = servable.run("predict_images", {"images": images})
    np.testing.assert_array_equal(again["logits"], answer["logits"])


def test_a_loaded_model_must_be_told_what_it_returns(task, tmp_path):
    task.save(tmp_path / "task.keras")
    loaded = keras.models.load_model(tmp_path / "task.keras")
    with pytest.raises(ValueError, match='output_kind="logits"'):
        export(loaded, tmp_path / "task")
    export(loaded, tmp_path / "task", output_kind="logits", class_names=["a", "b", "c"])


# === What is refused ===


def test_a_transductive_learner_is_refused_unless_allowed(tmp_path):
    learner = tfmeta.PrototypicalNetwork(encoder())
    adapted = learner.adapt(RNG.random((2, *SHAPE), "float32"), np.array([0, 1]))
    for model in (learner, adapted):
        with pytest.raises(ValueError, match="depends on the other queries"):
            export(model, tmp_path / "servable")
        assert not (tmp_path / "servable").exists()
    version = export(adapted, tmp_path / "task", allow_transductive=True)
    with pytest.raises(ServableError, match="alone and beside others differ"):
        check(version)
    assert check(version, allow_transductive=True)


class Counts(keras.layers.Layer):
    def build(self, input_shape):
        self.count = self.add_weight(shape=(), trainable=False)

    def call(self, x):
        self.count.assign_add(1.0)
        return x


class RunsPython(keras.layers.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.numpy_function(lambda v: v, [x], tf.float32), x.shape)


class Compiled(keras.layers.Layer):
    def call(self, x):
        return tf.function(lambda v: 2 * v, jit_compile=True)(x)


class LooksAside(keras.layers.Layer):
    def call(self, x):
        return x - tf.reduce_mean(x, axis=0)


class ReadsAFile(keras.layers.Layer):
    def call(self, x):
        return x + tf.cast(tf.strings.length(tf.io.read_file("/dev/null")), x.dtype)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Counts, "writes a variable"),
        (RunsPython, "runs Python"),
        (Compiled, "needs XLA"),
        (LooksAside, "alone and beside others differ"),
        (ReadsAFile, "touches files"),
    ],
)
def test_what_a_server_cannot_run_is_not_published(layer, message, tmp_path):
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2)(layer()(x)))
    with pytest.raises(ServableError, match=message):
        export(model, tmp_path / "bad", output_kind="logits")
    assert [p for p in (tmp_path / "bad").glob("*") if not p.name.startswith(".lock")] == []


def test_another_model_than_the_exported_one_does_not_agree(task, tmp_path):
    from tfmeta.serving import gate
    from tfmeta.serving.warmup import read_requests

    version = export(task, tmp_path / "task")
    (request, *_) = read_requests(version)
    expected = np.asarray(task(request.inputs["x"]))[:, :3]
    gate.check_agreement(version, [(request, {"logits": expected})])
    with pytest.raises(ServableError, match="model in memory"):
        gate.check_agreement(version, [(request, {"logits": expected + 0.01})])


# === Files ===


def test_versions_grow_and_the_server_s_settings_name_all_servables(task, tmp_path):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    for _ in range(3):
        export(task, tmp_path / "one", keep=2)
    export(task, tmp_path / "two")
    assert sorted(p.name for p in (tmp_path / "one").iterdir() if p.name[0] != ".") == ["2", "3"]
    config = text_format.Parse(
        (tmp_path / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    found = {c.name: c.base_path for c in config.model_config_list.config}
    assert found == {name: str(tmp_path / name) for name in ("one", "two")}
    assert "max_batch_size { value: 32 }" in (tmp_path / "batching_parameters.txt").read_text()


def test_an_example_s_shape_must_be_known(tmp_path):
    class Bare(keras.Model):
        def call(self, x):
            return x[:, :2]

    with pytest.raises(ValueError, match="example_shape="):
        export(Bare(), tmp_path / "bare", output_kind="logits")
    export(Bare(), tmp_path / "bare", output_kind="logits", example_shape=[3])
