"""All tasks at once give what one after another gives; what cannot be vectorised says so."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tests.learners.test_layers_against_differences import TABLE, network, task
from tests.learners_made_small import MODES, Networks, in_float64, make_learner, most_are_large
from tfmeta import task_mapping
from tfmeta.task_mapping import How

L = keras.layers
N_WAY, N_TASKS, SHAPE = 3, 5, (8, 8, 1)
INNER_LOOPS = ("anil", "cavia", "maml", "maml_plus_plus", "meta_lstm", "meta_sgd", "reptile")
ALL = sorted(tfmeta.learners.BY_NAME)


@pytest.fixture
def float64():
    with in_float64():
        yield


# === Learners of images, with dropout ===


def encoder(rate=0.3):
    """Convolutions with and without strides, batch norm, dropout and pooling."""
    layers = [
        keras.Input(SHAPE),
        L.Conv2D(4, 3, strides=2, padding="same"),
        L.BatchNormalization(),
        L.ReLU(),
        L.Dropout(rate, seed=3),
        L.Conv2D(5, 3, padding="same", kernel_regularizer="l2"),
        L.AveragePooling2D(2),
        L.Flatten(),
    ]
    return keras.Sequential(layers)


def network_of_images(rate=0.3):
    return keras.Sequential([*encoder(rate).layers, L.Dense(N_WAY)])


def network_with_context(rate=0.3):
    x, context = keras.Input(SHAPE), keras.Input((3,))
    features = keras.ops.add(encoder(rate)(x), L.Dense(20)(context))
    return keras.Model([x, context], L.Dense(N_WAY)(L.ReLU()(features)))


def relation_module():
    layers = [L.Conv2D(3, 2), L.BatchNormalization(), L.Flatten(), L.Dense(1, "sigmoid")]
    return keras.Sequential([keras.Input((2, 2, 10)), *layers])


IMAGES = Networks(
    network_of_images,
    encoder,
    network_with_context,
    relation_encoder=lambda: keras.Sequential(encoder().layers[:-1]),
    relation_module=relation_module,
)


def episodes(n_tasks=N_TASKS, is_padded=False, dtype="float64"):
    rng = np.random.default_rng(0)
    support_x, query_x = (rng.normal(size=(n_tasks, n, *SHAPE)).astype(dtype) for n in (6, 7))
    inputs = {
        "support_x": support_x,
        "support_y": np.tile(np.arange(6) % N_WAY, (n_tasks, 1)),
        "query_x": query_x,
    }
    query_y = np.tile(np.arange(7) % N_WAY, (n_tasks, 1))
    weights = np.ones(query_y.shape, dtype)
    if is_padded:
        inputs["support_mask"] = np.ones((n_tasks, 6), dtype)
        inputs["query_mask"] = np.ones((n_tasks, 7), dtype)
        inputs["support_mask"][1::2, 4:] = inputs["query_mask"][::2, 5:] = 0
        weights = inputs["query_mask"]
    return inputs, query_y, weights


def compiled(name, mapping, mode="support", networks=IMAGES, jit_compile="auto", **options):
    keras.utils.set_random_seed(0)
    learner = make_learner(name, networks, batch_norm=mode, task_mapping=mapping, **options)
    learner.compile(
        keras.optimizers.SGD(0.5),
        learner.default_loss(),
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return learner


def results(learner, data, n_steps=1):
    """What a step reports, and all weights after it: statistics and the seeds of dropout, too."""
    reported = [learner.train_on_batch(*data) for _ in range(n_steps)]
    return [*np.ravel(reported), *(v.numpy() for v in learner.variables)]


def assert_equal(some, others, tolerance=1e-9):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "mode", "is_padded"),
    [
        pytest.param(
            *(name, mode, is_padded),
            marks=[]
            if (name, mode, is_padded) == ("relation_network", "support", True)
            else [pytest.mark.large],
        )
        for name in ALL
        for mode in MODES
        for is_padded in (False, True)
    ],
)
@pytest.mark.usefixtures("float64")
def test_vectorized_training_is_that_of_the_loop(name, mode, is_padded):
    """With regularisers, and dropout masks of each task's own."""
    data = episodes(is_padded=is_padded)
    at_once = results(compiled(name, "vectorized", mode), data, n_steps=2)
    assert_equal(at_once, results(compiled(name, "loop", mode), data, n_steps=2))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("anil", 2),
        *(
            pytest.param(*case, marks=pytest.mark.large)
            for case in (("prototypical_network", 4), ("anil", 7))
        ),
    ],
)
@pytest.mark.usefixtures("float64")
def test_chunks_of_any_size_are_summed_up(name, size):
    """Also if they do not divide the number of tasks, or are larger than it."""
    data = episodes()
    loop, chunks = (
        compiled(name, mapping, tasks_at_once=size) for mapping in ("loop", "vectorized")
    )
    np.testing.assert_allclose(
        chunks.predict_on_batch(data[0]), loop.predict_on_batch(data[0]), rtol=1e-9
    )
    assert_equal(results(chunks, data), results(loop, data))


@pytest.mark.parametrize(
    ("name", "mapping"),
    [
        pytest.param(
            *(name, mapping),
            marks=[] if (name, mapping) == ("anil", "vectorized") else [pytest.mark.large],
        )
        for name in INNER_LOOPS
        for mapping in ("loop", "vectorized")
    ],
)
@pytest.mark.usefixtures("float64")
def test_xla_compiles_the_step_and_changes_no_result(name, mapping):
    """But for dropout, whose masks it draws by another algorithm."""
    plain = Networks(
        *(
            lambda make=make: make(0.0)
            for make in (network_of_images, encoder, network_with_context)
        )
    )
    data = episodes()
    compiled_by_xla = compiled(name, mapping, networks=plain, jit_compile=True)
    assert compiled_by_xla.mapping().compiled is False  # Outside of a graph, nothing is compiled.
    loop = compiled(name, "loop", networks=plain)
    assert_equal(results(compiled_by_xla, data, 2), results(loop, data, 2))


# === Layers ===

# What TensorFlow computes in a loop over the tasks, by the layer of the table.
IN_A_LOOP = {
    "Conv3D": "Conv3D",
    "Conv3DTranspose": "Conv3D",
    "activation sparsemax": "ScatterNd",
    "ops.sort": "ScatterNd",
    "ops.top_k": "ScatterNd",
}


def step_of_layer(name, mapping):
    """The weights after a step on two tasks, and the warnings about operations."""
    row = TABLE[name]
    inputs, query_y = task(row)
    inputs = {
        key: np.concatenate([x, np.roll(x, 1, axis=1), x[:, ::-1]]) for key, x in inputs.items()
    }
    query_y = np.concatenate([query_y, 2 * query_y, -query_y])
    learner = tfmeta.MAML(
        network(row),
        inner_learning_rate=0.3,
        inner_loss="mse",
        batch_norm="running",
        task_mapping=mapping,
    )
    learner.compile(keras.optimizers.SGD(0.1), "mse")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = learner.train_on_batch(inputs, query_y)
    said = [str(w.message) for w in caught if "task" in str(w.message)]
    return [loss, *(v.numpy() for v in learner.variables)], said


def check_layer(name):
    loop, _ = step_of_layer(name, "loop")
    at_once, said = step_of_layer(name, "vectorized")
    print(f"{name:32} {said}")
    assert_equal(at_once, loop, 1e-4 if TABLE[name].float32 else 1e-9)
    expected = IN_A_LOOP.get(name)
    assert len(said) == (expected is not None), said
    assert expected is None or expected in said[0]


SAMPLE = ("Conv1D causal, dilated", "Conv2DTranspose")


@pytest.mark.parametrize("name", most_are_large(TABLE.keys(), SAMPLE))
@pytest.mark.usefixtures("float64")
def test_every_layer_is_vectorised_or_says_that_it_is_not(name):
    check_layer(name)


# === What is chosen ===


def mapping_in_graph(learner):
    seen = []
    tf.function(lambda: seen.append(learner.mapping()), autograph=False)()
    return seen[0]


@pytest.mark.parametrize(
    ("has_gpu", "mapping", "jit_compile", "expected"),
    [
        (False, "auto", "auto", How(False, False)),
        (False, "auto", True, How(False, True)),
        (False, "vectorized", "auto", How(True, False)),
        (False, "vectorized", True, How(True, True)),
        (True, "auto", "auto", How(True, True)),
        (True, "auto", False, How(True, False)),
        (True, "loop", "auto", How(False, False)),
    ],
)
def test_the_mapping_follows_the_device_and_what_is_asked_for(
    has_gpu, mapping, jit_compile, expected, monkeypatch
):
    monkeypatch.setattr(task_mapping, "only_cpu", lambda: not has_gpu)
    learner = compiled("anil", mapping, jit_compile=jit_compile)
    assert mapping_in_graph(learner) == expected
    # Step by step, for debugging, tasks come one after another, unless that is asked for.
    assert learner.mapping() == How(mapping == "vectorized", False)


def test_metric_learners_are_vectorised_on_a_gpu_but_not_compiled(monkeypatch):
    monkeypatch.setattr(task_mapping, "only_cpu", lambda: False)
    learner = compiled("prototypical_network", "auto")
    assert mapping_in_graph(learner) == How(True, False)
    with pytest.raises(ValueError, match="counts the classes in each meta-batch"):
        learner.compile("sgd", learner.default_loss(), jit_compile=True)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="task_mapping must be one of auto, loop, vectorized"):
        make_learner("maml", IMAGES, task_mapping="parallel")
    with pytest.raises(ValueError, match="tasks_at_once must be an integer ≥ 1"):
        make_learner("maml", IMAGES, tasks_at_once=0)


def test_a_file_keeps_the_mapping_only_if_it_was_chosen(tmp_path):
    assert not {"task_mapping", "tasks_at_once"} & compiled("anil", "auto").get_config().keys()
    learner = compiled("anil", "vectorized", jit_compile=True, tasks_at_once=4)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert (loaded.task_mapping, loaded.tasks_at_once) == ("vectorized", 4)
    assert loaded.compiles_tasks == "auto"
    assert learner.with_batch_norm("running").tasks_at_once == 4


# === Precision, optimizers, errors ===


@pytest.mark.large
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_vectorised(policy):
    """Max pooling, too, whose second derivative XLA has in float32 only."""

    def network():
        pool = [L.MaxPooling2D(2), L.Flatten()]
        return keras.Sequential(
            [keras.Input(SHAPE), L.Conv2D(4, 3), L.ReLU(), *pool, L.Dense(N_WAY)]
        )

    networks = Networks(network, network, network)
    data = episodes(dtype="float32")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        loop = results(compiled("maml", "loop", networks=networks), data)
        for jit_compile in (False, True):
            learner = compiled("maml", "vectorized", networks=networks, jit_compile=jit_compile)
            at_once = results(learner, data)
            for a, b in zip(at_once, loop, strict=True):
                np.testing.assert_allclose(a, b, atol=0.05)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.01, clipnorm=0.1, use_ema=True),
        lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10)),
        lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
    ],
    ids=["clipped, averaged", "with a schedule", "accumulating", "scaled"],
)
@pytest.mark.usefixtures("float64")
def test_xla_compiles_the_step_of_any_optimizer(optimizer):
    data, found = episodes(2), []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        network = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(N_WAY)])
        learner = tfmeta.MAML(network)
        learner.compile(optimizer(), learner.default_loss(), jit_compile=jit_compile)
        found.append(results(learner, data, 4) + [v.numpy() for v in learner.optimizer.variables])
    assert_equal(*found)


def learner_with(function):
    layers = [L.Flatten(), L.Dense(4), L.Lambda(function), L.Dense(N_WAY)]
    network = keras.Sequential([keras.Input(SHAPE), *layers])
    return tfmeta.MAML(network, first_order=True)


def test_labels_are_checked_and_numbers_stay_finite_under_xla():
    """XLA would drop checks that it compiles."""
    network = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(N_WAY)])
    learner = tfmeta.MAML(network, task_mapping="vectorized")
    learner.compile("sgd", learner.default_loss(), jit_compile=True)
    inputs, query_y, _ = episodes(dtype="float32")
    wrong = {**inputs, "support_y": inputs["support_y"] + 1}
    with pytest.raises(ValueError, match="labels support_y must be from 0 to 2"):
        learner.train_on_batch(wrong, query_y)
    before = learner.get_weights()
    nan = {**inputs, "query_x": np.full_like(inputs["query_x"], np.nan)}
    with pytest.raises(ValueError, match="of training step 1 is not finite"):
        learner.train_on_batch(nan, query_y)
    for a, b in zip(before, learner.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_xla_cannot_compile_is_named():
    text = tf.strings.as_string
    learner = learner_with(lambda x: x + tf.strings.to_number(text(tf.stop_gradient(x[0, 0]))))
    learner.compile("sgd", learner.default_loss(), jit_compile=True)
    inputs, query_y, _ = episodes(dtype="float32")
    with pytest.raises(ValueError, match="XLA cannot compile the operation AsString"):
        learner.train_on_batch(inputs, query_y)


def test_too_little_memory_names_the_way_out():
    learner = learner_with(lambda x: x + tf.reduce_sum(tf.fill(2 * [2**22], x[0, 0])))
    learner.compile("sgd", learner.default_loss())
    inputs, query_y, _ = episodes(dtype="float32")
    with pytest.raises(MemoryError, match="tasks_at_once"):
        learner.train_on_batch(inputs, query_y)
