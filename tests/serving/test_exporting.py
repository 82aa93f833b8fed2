"""What is exported answers as the model in memory does, without TensorFlow's Python."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from c_api import InvalidArgument
from c_api_worker import Worker
from family import LEARNERS, SHAPE, network, small_maml

import tfmeta
from tfmeta.data import ImageFormat
from tfmeta.serving import ServableError, check, export, gate
from tfmeta.serving.requests import checked_support
from tfmeta.serving.warmup import read_requests

RNG = np.random.default_rng(0)


def episodes(learner, n_tasks, n_support, n_query, n_way=5):
    """A meta-batch as a request, with some padding in the support set."""
    rng = np.random.default_rng(n_support)
    mask = np.ones((n_tasks, n_support), "float32")
    mask[:, n_way:] = rng.random((n_tasks, n_support - n_way)) < 0.8
    y = np.tile(np.arange(n_support) % n_way, (n_tasks, 1)).astype("int64")
    if learner.output_kind == "values":
        y = rng.normal(size=(n_tasks, n_support, 1)).astype("float32")
    return {
        "support_x": rng.random((n_tasks, n_support, *learner.example_shape), "float32"),
        "support_y": y,
        "support_mask": mask,
        "query_x": rng.random((n_tasks, n_query, *learner.example_shape), "float32"),
    }


# The comparing one is in the tests below, too; the large tier has the others.
BY_DEFAULT = ("maml_regression",)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in BY_DEFAULT else [pytest.mark.large]) for n in LEARNERS],
)
def test_a_learner_adapts_in_a_process_without_tensorflow(name, exported):
    learner, weights, version = exported(name)
    key = {"logits": "logits", "scores": "scores", "values": "predictions"}[learner.output_kind]
    with Worker(version) as servable:
        for sizes in ((1, 5, 1), (2, 12, 7), (3, 25, 2)):
            inputs = episodes(learner, *sizes)
            expected = np.asarray(learner(inputs, training=False))
            answer = servable.run("adapt_and_predict", inputs)
            # The inner steps enlarge the differences in rounding between kernels.
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
    for before, after in zip(weights, learner.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.fixture(scope="module")
def prototypical(exported):
    """A learner, and a process that serves it."""
    learner, _, version = exported("prototypical_network")
    with Worker(version) as servable:
        yield learner, servable


def test_a_metric_learner_takes_any_number_of_classes(prototypical):
    learner, servable = prototypical
    few, many = episodes(learner, 1, 8, 4, n_way=2), episodes(learner, 1, 8, 4, n_way=4)
    alone = servable.run("adapt_and_predict", few)
    assert alone["logits"].shape == (1, 4, 2)
    both = servable.run("adapt_and_predict", {k: np.concatenate([few[k], many[k]]) for k in few})
    # Beside a task of more classes, a task has further ones that are never predicted.
    assert both["logits"].shape == (2, 4, 4)
    np.testing.assert_allclose(both["logits"][:1, :, :2], alone["logits"], rtol=1e-5)
    assert (both["probabilities"][0, :, 2:] == 0).all()


def test_padding_may_hold_anything_finite(prototypical):
    learner, servable = prototypical
    inputs = episodes(learner, 1, 10, 3)
    inputs["support_mask"][:, 8:] = 0
    expected = servable.run("adapt_and_predict", inputs)["logits"]
    # Its square is infinite.
    inputs["support_x"][:, 8:] = 1e30
    inputs["support_y"][:, 8:] = -7
    np.testing.assert_array_equal(servable.run("adapt_and_predict", inputs)["logits"], expected)


# === What an export costs ===


@pytest.mark.parametrize(
    "image_format", [None, pytest.param(ImageFormat(3, 3, 1), marks=pytest.mark.large)]
)
def test_an_export_traces_each_function_of_a_learner_once(image_format, tmp_path):
    traces = Counter()

    class Counting(tfmeta.PrototypicalNetwork):
        def adapt_task(self, *args, **kwargs):
            traces["adapt_task"] += not tf.executing_eagerly()
            return super().adapt_task(*args, **kwargs)

        def predict_task(self, *args, **kwargs):
            traces["predict_task"] += not tf.executing_eagerly()
            return super().predict_task(*args, **kwargs)

    learner = Counting(small_image_encoder())
    version = export(learner, tmp_path / "counted", image_format=image_format)
    # All signatures share them.
    assert traces == {"adapt_task": 1, "predict_task": 1}
    of_images = {"adapt_and_predict_images", "adapt_images", "predict_images"}
    assert set(tf.saved_model.load(str(version)).signatures) == {
        *("serving_default", "adapt_and_predict", "adapt", "predict"),
        *(of_images if image_format else ()),
    }


def test_weights_are_stored_once(tmp_path):
    learner = tfmeta.PrototypicalNetwork(small_image_encoder())
    version = export(learner, tmp_path / "stored")
    stored = tf.train.list_variables(str(version / "variables" / "variables"))
    shapes = [tuple(shape) for name, shape in stored if name.endswith("VARIABLE_VALUE")]
    assert sorted(shapes) == sorted(tuple(v.shape) for v in learner.variables)


def small_image_encoder():
    layers = [keras.layers.Flatten(), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input((3, 3, 1)), *layers])


# === Adapted models ===


@pytest.fixture(scope="module")
def task(exported):
    """A task of five classes, in memory."""
    return exported("adapted").model


def test_an_adapted_model_tells_logits_probabilities_and_names(task, exported):
    x = RNG.random((4, *SHAPE), "float32")
    logits = task.predict(x, verbose=0)
    with Worker(exported("adapted").version) as servable:
        answer = servable.run("serving_default", {"x": x})
    np.testing.assert_allclose(answer["logits"], logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits), rtol=1e-4)
    assert answer["classes"].tolist() == [[b"ant", b"bee", b"cow", b"dog", b"elk"]] * 4


def test_a_task_of_fewer_classes_than_outputs_has_as_many_as_names(task, tmp_path):
    x = RNG.random((4, *SHAPE), "float32")
    version = export(task, tmp_path / "task", class_names=["owl", "cat", "yak"])
    answer = tf.saved_model.load(str(version)).signatures["serving_default"](x=x)
    expected = task.predict(x, verbose=0)[:, :3]
    np.testing.assert_allclose(answer["logits"], expected, rtol=1e-4, atol=1e-6)
    assert answer["classes"].numpy().tolist() == [[b"owl", b"cat", b"yak"]] * 4


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
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization()]
    learner = tfmeta.PrototypicalNetwork(keras.Sequential([keras.Input((3,)), *layers]))
    adapted = learner.adapt(RNG.random((2, 3), "float32"), np.array([0, 1]))
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
        # Of learners, `test_gate.py` has it in the default tier.
        pytest.param(LooksAside, "alone and beside others differ", marks=pytest.mark.large),
        (ReadsAFile, "touches files"),
    ],
)
def test_what_a_server_cannot_run_is_not_published(layer, message, tmp_path):
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2)(layer()(x)))
    with pytest.raises(ServableError, match=message):
        export(model, tmp_path / "bad", output_kind="logits")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.large
def test_another_model_than_the_exported_one_does_not_agree(task, exported):
    version = exported("adapted").version
    (request, *_) = read_requests(version)
    answer = {"logits": np.asarray(task(request.inputs["x"]))}
    wrong = {"logits": answer["logits"] + 0.01}
    *_, agreement, reference = gate.check(
        version, expected=[(request, answer)], reference=(request, answer)
    )
    assert agreement.what == "agreement with the model"
    assert reference.what == "agreement with an eager call"
    with pytest.raises(ServableError, match="model in memory"):
        gate.check(version, expected=[(request, wrong)])
    with pytest.raises(ServableError, match="called eagerly"):
        gate.check(version, reference=(request, wrong))


def test_signatures_that_compute_something_else_than_the_learner_are_not_published(
    tmp_path, monkeypatch
):
    # The signatures' answers in memory are wrong in the same way: only the eager call shows it.
    def with_other_labels(inputs, *_):
        support, n_way = checked_support(inputs, False, None)
        labels = (support["support_y"] + 1) % tf.cast(n_way, tf.int64)
        return {**support, "support_y": labels}, n_way

    monkeypatch.setattr("tfmeta.serving.signatures.checked_support", with_other_labels)
    learner = tfmeta.PrototypicalNetwork(small_image_encoder())
    with pytest.raises(ServableError, match="of the model called eagerly differ"):
        export(learner, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    "names", ["abc", [], ["a"] * 6, [1, 2, 3]], ids=["text", "none", "too many", "numbers"]
)
def test_names_must_fit_the_outputs(names, task, tmp_path):
    with pytest.raises(ValueError, match="must be a list of 1 to 5 strings"):
        export(task, tmp_path / "task", class_names=names)


def test_values_have_no_names(tmp_path):
    x = np.zeros((2, 1), "float32")
    model = LEARNERS["maml_regression"]().adapt(x, x)
    with pytest.raises(ValueError, match="for classifiers"):
        export(model, tmp_path / "values", class_names=["a"])


def test_arguments_that_do_not_fit_are_told(task, tmp_path):
    with pytest.raises(ValueError, match="model must be a learner or a Keras model"):
        export("my_task", tmp_path / "task")
    with pytest.raises(ValueError, match="image_format must be an ImageFormat"):
        export(task, tmp_path / "task", image_format={"height": 14, "width": 14})
    with pytest.raises(ValueError, match=r"examples of shape \(14, 14, 1\), not \(13, 13, 3\)"):
        export(task, tmp_path / "task", example_shape=(13, 13, 3))
    inputs = [keras.Input((2,)), keras.Input((2,))]
    two = keras.Model(inputs, keras.layers.Add()(inputs))
    with pytest.raises(ValueError, match="must take one input"):
        export(two, tmp_path / "two", output_kind="logits")
    any_size = keras.Sequential([keras.Input((None, 3)), keras.layers.GlobalMaxPooling1D()])
    with pytest.raises(ValueError, match="pass example_shape="):
        export(any_size, tmp_path / "any", output_kind="logits")
    with pytest.raises(ValueError, match="needs a name"):
        export(task, "/")
    assert list(tmp_path.iterdir()) == []


# === Rounding ===


@pytest.mark.large
def test_rounding_that_inner_steps_enlarge_is_no_disagreement(tmp_path):
    # With these weights, the answers of two kinds of kernels differ by 5e-4.
    keras.utils.set_random_seed(0)
    learner = tfmeta.MAML(
        network(),
        inner_learning_rate=20.0,
        inner_steps=1,
        test_inner_steps=5,
        batch_norm="support",
    )
    export(learner, tmp_path / "steep")


def test_a_learner_that_diverged_is_refused_by_name(tmp_path):
    learner = small_maml()
    learner.network.set_weights([np.full_like(w, np.nan) for w in learner.network.get_weights()])
    with pytest.raises(ServableError, match=r"fails on a warmup request.*must be finite"):
        export(learner, tmp_path / "diverged")


def test_integers_are_asked_for_by_a_model_of_integers(tmp_path):
    layers = [keras.layers.Embedding(2, 4), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,), dtype="int32"), *layers])
    with Worker(export(model, tmp_path / "words", output_kind="logits")) as servable:
        x = np.array([[0, 1, 1]], "int32")
        answer = servable.run("serving_default", {"x": x})
    np.testing.assert_allclose(answer["logits"], model.predict(x, verbose=0), rtol=1e-5)


def test_half_precision_is_answered_in_single(tmp_path):
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="mixed_float16")])
    adapted = tfmeta.MAML(network, inner_learning_rate=0.1).adapt(RNG.random((3, 4)), np.arange(3))
    with Worker(export(adapted, tmp_path / "half")) as servable:
        answer = servable.run("serving_default", {"x": RNG.random((2, 4), "float32")})
    assert answer["logits"].dtype == "float32"


# === Files ===


def test_versions_grow_in_their_folder_and_nothing_is_written_outside(tmp_path):
    for _ in range(3):
        export(dense(), tmp_path / "one", output_kind="logits", keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert sorted(p.name for p in (tmp_path / "one").iterdir() if p.name[0] != ".") == ["2", "3"]


def test_a_failed_export_leaves_earlier_versions_and_nothing_else(tmp_path):
    def files():
        """When each file was written, without those that lock a folder."""
        paths = (path for path in tmp_path.rglob("[!.]*") if path.is_file())
        return {path: path.stat().st_mtime for path in paths}

    version = export(dense(), tmp_path / "one", output_kind="logits")
    before = files()
    bad = dense()
    bad.set_weights([np.full_like(w, np.nan) for w in bad.get_weights()])
    with pytest.raises(ServableError):
        export(bad, tmp_path / "one", output_kind="logits")
    with pytest.raises(ServableError):
        export(bad, tmp_path / "new" / "folder", output_kind="logits")
    assert files() == before
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert version.is_dir()


@pytest.mark.large
def test_learners_are_exported_in_several_threads_at_once(tmp_path):
    # Twice the same: what one thread traces is of no use in the other's graph.
    same = tfmeta.PrototypicalNetwork(small_image_encoder())
    models = [same, same, tfmeta.PrototypicalNetwork(small_image_encoder())]
    with ThreadPoolExecutor(3) as pool:
        versions = list(pool.map(lambda i: export(models[i], tmp_path / f"m{i}"), range(3)))
    assert all((version / "saved_model.pb").is_file() for version in versions)


def test_a_folder_is_taken_as_in_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "there").mkdir()
    model = dense()
    for start, folder, expected in (
        (tmp_path, "~/my models/task", tmp_path / "home" / "my models" / "task"),
        (tmp_path, "here", tmp_path / "here"),
        (tmp_path / "there", ".", tmp_path / "there"),
    ):
        monkeypatch.chdir(start)
        assert export(model, folder, output_kind="logits") == expected / "1"


def dense():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_a_learner_that_was_never_called_is_built(tmp_path):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    learner = tfmeta.PrototypicalNetwork(Own(), batch_norm="support")
    with pytest.raises(ValueError, match="example_shape="):
        export(learner, tmp_path / "own")
    export(learner, tmp_path / "own", example_shape=[3])
    assert learner.built


def test_an_example_s_shape_must_be_known(tmp_path):
    class Bare(keras.Model):
        def call(self, x):
            return x[:, :2]

    with pytest.raises(ValueError, match="example_shape="):
        export(Bare(), tmp_path / "bare", output_kind="logits")
    export(Bare(), tmp_path / "bare", output_kind="logits", example_shape=[3])
