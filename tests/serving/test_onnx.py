"""Keras's own ONNX export of adapted models and encoders, run by onnxruntime."""

import keras
import numpy as np
import onnxruntime
import pytest

import tfmeta
from tfmeta import backbones

RNG = np.random.default_rng(0)
SHAPE = (14, 14, 1)


def network():
    return backbones.conv4(5, SHAPE, 8)


def encoder():
    return backbones.conv4(None, SHAPE, 8)


LEARNERS = {
    "maml": lambda: tfmeta.MAML(network(), 0.1, 2, batch_norm="support"),
    "maml_running": lambda: tfmeta.MAML(network(), 0.1, 2, batch_norm="running"),
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
}


def adapted(learner):
    part = getattr(learner, "encoder", None) or learner.network
    shape = part.input_shape[0] if isinstance(part.input_shape, list) else part.input_shape
    return learner.adapt(pictures(10, shape[1:]), np.arange(10) % 5)


def pictures(n, shape):
    """Some bright, some dark: of noise alone, all look the same."""
    contrasts = RNG.choice([0.2, 1, 5], (n, 1, 1, 1))
    return (RNG.random((n, *shape)) ** contrasts).astype("float32")


def assert_same_in_onnx(model, path):
    shape = model.input_shape[1:]
    signature = [keras.InputSpec(shape=(None, *shape), dtype="float32", name="x")]
    model.export(path, format="onnx", input_signature=signature, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # What tf2onnx could not convert, it makes a further input.
    assert [i.name for i in session.get_inputs()] == ["x"]
    for n in (1, 3, 64):
        x = pictures(n, shape)
        expected = model.predict(x, verbose=0)
        (outputs,) = session.run(None, {"x": x})
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    # An untrained relation module tells little apart.
    assert np.ptp(expected) > 3e-4


@pytest.mark.parametrize("name", LEARNERS)
def test_an_adapted_model_predicts_the_same_in_onnx(name, tmp_path):
    assert_same_in_onnx(adapted(LEARNERS[name]()), str(tmp_path / "task.onnx"))


def test_an_encoder_embeds_the_same_in_onnx(tmp_path):
    learner = LEARNERS["prototypical_network"]()
    # With the statistics of the task: the learner's own encoder has none in this mode.
    of_task = adapted(learner).get_layer(learner.encoder.name)
    assert_same_in_onnx(of_task, str(tmp_path / "encoder.onnx"))
