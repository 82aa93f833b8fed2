"""What tfmeta rests on in Keras and TensorFlow, so that an upgrade that changes it is noticed.

Each test names what breaks in tfmeta if it fails.
"""

import pickle
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta import keras_internals, tensorflow_internals


def test_layers_of_a_model_are_found_however_deep_they_lie():
    """Otherwise batch norm inside nested models is not told what to do, silently."""
    inner = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="deep")])
    model = keras.Sequential([keras.Input((4,)), keras.Sequential([inner])])
    assert "deep" in [layer.name for layer in keras_internals.layers_of(model)]


@pytest.mark.parametrize(
    ("layer", "name", "replace", "x"),
    [
        (
            keras.layers.BatchNormalization(),
            "call",
            keras_internals.replace_call,
            np.ones((2, 3), "float32"),
        ),
        (
            keras.layers.Conv2D(2, 3),
            "convolution_op",
            keras_internals.replace_convolution,
            np.ones((1, 5, 5, 1), "float32"),
        ),
    ],
    ids=["call", "convolution"],
)
def test_a_replaced_method_is_the_one_that_keras_calls(layer, name, replace, x):
    """Otherwise episodes are silently those of plain Keras."""
    asked = []

    def make(layer):
        original = getattr(type(layer), name)

        def method(*args, **kwargs):
            asked.append(name)
            return original(layer, *args, **kwargs)

        return method

    expected = layer(x).numpy()
    replace(layer, make)
    np.testing.assert_array_equal(layer(x), expected)
    assert asked == [name]
    replace(layer, lambda layer: lambda *args, **kwargs: pytest.fail("replaced twice"))
    layer(x)
    assert asked == [name, name]


def test_a_layers_own_convolution_is_that_of_its_class():
    layer, x = keras.layers.Conv2D(2, 3, use_bias=False), np.ones((1, 5, 5, 1), "float32")
    expected = layer(x).numpy()
    keras_internals.replace_convolution(layer, lambda layer: lambda inputs, kernel: inputs)
    outputs = keras_internals.own_convolution(layer, x, layer.kernel)
    np.testing.assert_array_equal(outputs, expected)


def test_only_keras_own_layers_count_as_stock():
    class Normalization(keras.layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return inputs

    class Convolution(keras.layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel)

    assert keras_internals.is_stock_batch_norm(keras.layers.BatchNormalization())
    assert not keras_internals.is_stock_batch_norm(Normalization())
    assert keras_internals.is_stock_conv2d(keras.layers.Conv2D(1, 1))
    assert not keras_internals.is_stock_conv2d(Convolution(1, 1))
    assert not keras_internals.is_stock_conv2d(keras.layers.Dense(1))


def test_batch_renormalisation_is_recognised():
    if "renorm" not in keras.layers.BatchNormalization().get_config():
        pytest.skip("this Keras has no batch renormalisation")
    assert keras_internals.uses_batch_renorm(keras.layers.BatchNormalization(renorm=True))
    assert not keras_internals.uses_batch_renorm(keras.layers.BatchNormalization())


def test_keras_asks_a_model_for_its_default_save_signature_by_this_name():
    """Otherwise Keras guesses that a learner takes an array, and traces it when it is exported."""
    assert isinstance(vars(keras.Model).get("_default_save_signature"), property) or any(
        "_default_save_signature" in vars(cls) for cls in keras.Model.__mro__
    )
    assert tfmeta.MAML(tfmeta.backbones.mlp())._default_save_signature is None


def test_the_loss_tracker_is_keras_own_whatever_metrics_are_called():
    """Otherwise `history` lacks the loss, or a user's metric is updated twice."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    assert keras_internals.loss_tracker(model) is None
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanAbsoluteError(name="loss")])
    tracker = keras_internals.loss_tracker(model)
    assert isinstance(tracker, keras.metrics.Mean)
    assert tracker.name == "loss"
    model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    assert float(tracker.total) > 0 or float(tracker.count) > 0


def test_a_seed_state_has_the_name_and_layout_that_tasks_shift():
    """Otherwise all tasks get the same dropout mask, silently."""
    dropout = keras.layers.Dropout(0.5)
    state = dropout.seed_generator.state
    assert keras_internals.is_seed_state(state)
    assert tuple(state.shape) == (2,)
    seed = int(state.numpy()[0])
    dropout(np.ones((2, 2), "float32"), training=True)
    assert state.numpy().tolist() == [seed, int(state.numpy()[1])]
    assert int(state.numpy()[1]) > 0
    np.testing.assert_array_equal(
        keras_internals.shifted_seed(state, tf.constant(7)), np.array([7, 0])
    )
    assert not keras_internals.is_seed_state(keras.Variable(1.0, name="kernel"))


def test_keras_normalises_by_tf_nn_moments_looked_up_at_each_call():
    """Otherwise second derivatives through layer, group and batch norm are silently wrong."""
    asked = []
    before = tf.nn.moments

    def moments(*args, **kwargs):
        asked.append(True)
        return before(*args, **kwargs)

    tf.nn.moments = moments
    try:
        keras.layers.GroupNormalization(groups=1)(np.ones((2, 4), "float32"))
        assert asked == [True]
        layer = keras.layers.BatchNormalization()
        layer(np.ones((2, 4), "float32"), training=True)
        assert asked == [True, True]
    finally:
        tf.nn.moments = before


def test_tensorflows_own_moments_still_have_wrong_second_derivatives():
    """When this fails, TensorFlow or Keras has mended it: the replacement can go."""
    x = tf.constant([1.0, 2.0, 4.0], tf.float64)

    def second(moments):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                _, variance = moments(x, [0])
            gradient = inner.gradient(variance, x)[0]
        return outer.gradient(gradient, x).numpy()

    # Of 1/3 Σ (x − mean)²: 2/3 (1 − 1/3), −2/3 · 1/3, −2/3 · 1/3.
    right = np.array([4, -2, -2]) / 9
    np.testing.assert_allclose(second(tfmeta.networks.replacements.moments), right, rtol=1e-12)
    assert np.abs(second(tensorflow_internals.original("nn.moments")) - right).max() > 0.1


def test_the_fused_kernel_normalises_and_gives_the_unbiased_variance():
    """Otherwise `ops.normalize` has wrong second derivatives."""
    x = tf.constant(np.random.default_rng(0).normal(size=(6, 1, 1, 2)), tf.float32)
    outputs = tensorflow_internals.fused_batch_norm(x, tf.constant([1.0, 2.0]), 1e-3)
    flat = x.numpy().reshape(6, 2).astype("float64")
    np.testing.assert_allclose(outputs.batch_variance, flat.var(axis=0, ddof=1), rtol=1e-5)
    expected = (flat - flat.mean(axis=0)) / np.sqrt(flat.var(axis=0) + 1e-3) + [1, 2]
    np.testing.assert_allclose(outputs.y.numpy().reshape(6, 2), expected, rtol=1e-4, atol=1e-5)


def test_the_fused_gradient_is_that_of_the_forward_pass():
    rng = np.random.default_rng(1)
    x, g = (tf.constant(rng.normal(size=(5, 1, 1, 3)), tf.float32) for _ in range(2))
    saved = tensorflow_internals.fused_batch_norm(x, tf.zeros([3]), 1e-3)
    to_x, to_offset, to_scale = tensorflow_internals.fused_batch_norm_gradient(g, x, saved, 1e-3)
    with tf.GradientTape() as tape:
        tape.watch(x)
        mean, variance = tfmeta.networks.replacements.moments(x, [0, 1, 2])
        y = (x - mean) * tf.math.rsqrt(variance + 1e-3)
    np.testing.assert_allclose(to_x, tape.gradient(y, x, g), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(to_offset, tf.reduce_sum(g, [0, 1, 2]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(to_scale, tf.reduce_sum(g * y, [0, 1, 2]), rtol=1e-3, atol=1e-5)


def test_a_value_without_gradient_raises_when_it_is_differentiated():
    x = tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tensorflow_internals.without_gradient(x * x, "no third derivative")
    assert float(y) == 4
    with pytest.raises(LookupError, match="no third derivative"):
        tape.gradient(y, x)


def test_a_vectorized_map_keeps_the_policy_of_bad_indices():
    """Otherwise `tape.jacobian` through `ops.conv2d` raises an error about an index of -1."""
    x = tf.reshape(tf.range(12.0), [2, 3, 2])
    indices = tf.constant([[2], [-1], [0]])

    def rows(x):
        return tf.gather_nd(x, indices, bad_indices_policy="IGNORE")

    together = tf.vectorized_map(rows, x)
    np.testing.assert_array_equal(together, tf.stack([rows(x[0]), rows(x[1])]))
    assert together[0, 1].numpy().tolist() == [0, 0]
    valid = tf.constant([[2], [0]])
    without = tf.vectorized_map(lambda x: tf.gather_nd(x, valid), x)
    np.testing.assert_array_equal(without, tf.gather(x, [2, 0], axis=1))


def test_a_shape_is_forgotten_so_that_a_graph_still_checks_it():
    @tf.function(input_signature=[tf.TensorSpec([None, 2])])
    def checked(x):
        unknown = tensorflow_internals.with_unknown_shape(x, "x_of_any_shape")
        assert unknown.shape.rank is None
        return tf.ensure_shape(unknown, [None, 2])

    assert checked(tf.ones([3, 2])).shape == (3, 2)
    operations = [op.type for op in checked.get_concrete_function().graph.get_operations()]
    assert "PlaceholderWithDefault" in operations
    assert "EnsureShape" in operations


def test_importing_tfmeta_changes_nothing_about_plain_keras():
    """The exchange of `tf.nn.moments` is inert outside of episodes."""
    script = """
        import keras, numpy as np, tensorflow as tf
        own = tf.nn.moments
        x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
        layer = keras.layers.BatchNormalization()
        before = layer(x, training=True).numpy()
        import tfmeta
        from tfmeta import tensorflow_internals
        assert tensorflow_internals.original("nn.moments") is own
        assert tf.nn.moments is not own
        np.testing.assert_array_equal(layer(x, training=True).numpy(), before)
        for ours, theirs in zip(tf.nn.moments(x, [0]), own(x, [0])):
            np.testing.assert_array_equal(ours, theirs)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_a_seed_state_that_is_set_gives_the_same_mask_again():
    """Otherwise a resumed run drops other units than an uninterrupted one."""
    dropout = keras.layers.Dropout(0.5)
    x = np.ones((4, 50), "float32")
    keras_internals.set_seed_state(dropout.seed_generator.state, 3, 7)
    first = dropout(x, training=True).numpy()
    assert np.abs(first - dropout(x, training=True).numpy()).max() > 0
    keras_internals.set_seed_state(dropout.seed_generator.state, 3, 7)
    np.testing.assert_array_equal(dropout(x, training=True).numpy(), first)


def test_a_saved_model_is_parsed_and_garbage_is_refused(tmp_path):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None])])
    def double(x):
        return {"y": 2 * x}

    @tf.function(input_signature=[tf.TensorSpec([None])], jit_compile=True)
    def compiled(x):
        return {"y": 2 * x}

    module.double, module.compiled = double, compiled
    signatures = {"double": double, "compiled": compiled}
    tf.saved_model.save(module, str(tmp_path), signatures=signatures)
    (graph,) = tensorflow_internals.meta_graphs((tmp_path / "saved_model.pb").read_bytes())
    assert {"double", "compiled"} <= set(graph.signature_def)
    assert tensorflow_internals.SAVED_MODEL_INIT in graph.signature_def
    nodes = [
        node for function in graph.graph_def.library.function for node in function.node_def
    ] + list(graph.graph_def.node)
    assert any(tensorflow_internals.needs_xla(node) for node in nodes)
    assert not all(tensorflow_internals.needs_xla(node) for node in nodes)
    with pytest.raises(ValueError, match="no SavedModel"):
        tensorflow_internals.meta_graphs(b"garbage")


def test_the_cause_of_an_error_in_a_graph_is_one_sentence():
    @tf.function
    def fails(x):
        with tf.control_dependencies([tf.debugging.Assert(x > 0, ["x must be positive"])]):
            return tf.identity(x)

    with pytest.raises(tf.errors.OpError) as caught:
        fails(tf.constant(-1))
    assert "x must be positive" in tensorflow_internals.cause_of(caught.value)
    with pytest.raises(tf.errors.OpError) as caught:
        tf.ensure_shape(tf.ones([2]), [3])
    assert "\n" not in tensorflow_internals.cause_of(caught.value)
    assert "[2]" in tensorflow_internals.cause_of(caught.value)


def test_an_error_in_a_loop_over_a_data_set_is_explained():
    """Otherwise a broken image file in an episode is not named."""

    class Explained(Exception):
        pass

    def explain(error):
        raise Explained from error

    plain = tf.data.Dataset.range(3).map(lambda i: tf.debugging.check_numerics(1 / i, "bad"))
    data = tensorflow_internals.explaining(plain, explain)
    assert data.element_spec == plain.element_spec
    with pytest.raises(Explained):
        next(iter(data))
    good = tensorflow_internals.explaining(tf.data.Dataset.range(3), explain)
    assert [int(i) for i in good] == [0, 1, 2]
    # Keras takes the iterator into a graph.
    iterator = iter(good)
    assert int(tf.function(lambda it: next(it))(iterator)) == 0
    assert int(next(iterator)) == 1


@pytest.mark.parametrize("scales_loss", [False, True])
def test_the_steps_of_an_optimizer_and_its_averages_are_found(scales_loss):
    """Otherwise runs of 0.1.0 resume elsewhere, and runs save weights instead of their averages."""
    variables = [keras.Variable([1.0, 2.0]), keras.Variable([0.1])]
    inner = keras.optimizers.SGD(
        1.0, use_ema=True, ema_momentum=0.75, gradient_accumulation_steps=2
    )
    optimizer = keras.optimizers.LossScaleOptimizer(inner, 1.0) if scales_loss else inner
    optimizer.build(variables)
    assert not keras_internals.swap_averages(optimizer)
    for _ in range(5):
        optimizer.apply([tf.constant([0.3, 0.7]), tf.constant([0.1])], variables)
    assert keras_internals.steps_taken(optimizer) == 5
    before = [v.numpy() for v in (*variables, *optimizer.variables)]
    assert keras_internals.swap_averages(optimizer)
    averages = [v.numpy() for v in inner._model_variables_moving_average]
    for variable, average, value in zip(variables, averages, before, strict=False):
        np.testing.assert_array_equal(average, value)
        assert (variable.numpy() != value).all()
    assert keras_internals.swap_averages(optimizer)
    for variable, value in zip((*variables, *optimizer.variables), before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert not keras_internals.swap_averages(keras.optimizers.SGD())


def test_an_optimizer_knows_the_variables_that_it_was_built_for():
    """Otherwise thawed layers would meet Keras's error about unknown variables, or none."""
    first, second = keras.Variable(0.0), keras.Variable(0.0)
    sgd = keras.optimizers.SGD()
    for optimizer in (sgd, keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())):
        optimizer.build([first])
        assert keras_internals.optimizer_knows(optimizer, [first])
        assert not keras_internals.optimizer_knows(optimizer, [first, second])


def test_layers_assign_their_averages_and_seeds_but_no_frozen_weights():
    """Otherwise each step would average the weights of frozen layers over tasks, and round them."""
    layers = [keras.layers.Dense(2), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    names = {"moving_mean", "moving_variance", "seed_generator_state"}
    for trainable in (True, False):
        layers[0].trainable = trainable
        assert {v.name for v in keras_internals.assigned_by_layers(model)} == names


def test_a_pickle_keeps_what_it_is_told_and_needs_no_tfmeta():
    """Otherwise a task that is sent to another process forgets its classes."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.class_names = ["a"]
    keras_internals.keep_in_pickles(model, "class_names")
    content = pickle.dumps(model)
    assert b"tfmeta" not in content
    again = pickle.loads(content)
    assert again.class_names == ["a"]
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])
