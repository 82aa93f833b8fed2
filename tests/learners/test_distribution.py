"""Under `tf.distribute.MirroredStrategy`, two replicas take the step that one would take."""

import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
    import numpy as np
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    import keras
    import tfmeta

    averaged = dict(use_ema=True, ema_momentum=0.5)

    def learner(name, **options):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.ReLU()]
        # The step is the same only if each task of the other replica has the masks it had here.
        layers.append(keras.layers.Dropout(0.5, seed=1))
        network = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3)])
        made = tfmeta.learners.get(name)(network, batch_norm="running")
        optimizer = keras.optimizers.SGD(0.1, **options)
        made.compile(optimizer, made.default_loss(), metrics=["accuracy"])
        return made

    rng = np.random.default_rng(0)
    inputs = {
        "support_x": rng.normal(size=(4, 6, 4)).astype("float32"),
        "support_y": np.tile(np.arange(3), (4, 2)),
        "query_x": rng.normal(size=(4, 9, 4)).astype("float32"),
    }
    query_y = np.tile(np.arange(3), (4, 3))

    def trained(made):
        tasks = tf.data.Dataset.from_tensor_slices((inputs, query_y)).batch(4).repeat(2)
        history = made.fit(tasks, shuffle=False, verbose=0).history
        return made.get_weights(), history

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    cases = [("maml", {}), ("maml", averaged), ("prototypical_network", {}), ("reptile", {})]
    for name, options in cases:
        before = learner(name).get_weights()
        weights, history = trained(learner(name, **options))
        with strategy.scope():
            mirrored = learner(name, **options)
        weights_of_two, history_of_two = trained(mirrored)
        assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(weights, before)), name
        for a, b in zip(weights, weights_of_two, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)
        for key, values in history.items():
            np.testing.assert_allclose(values, history_of_two[key], rtol=1e-5, err_msg=name)
"""


@pytest.mark.large
def test_two_replicas_take_the_step_of_one():
    """Weights, also averaged ones, batch statistics, dropout masks, the reported loss, metrics."""
    subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], check=True)
