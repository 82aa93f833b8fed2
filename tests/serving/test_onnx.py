"""Keras's own ONNX export of adapted models and encoders, run by onnxruntime."""

import keras
import numpy as np
import onnxruntime
import pytest
from family import LEARNERS

RNG = np.random.default_rng(0)


def adapted(learner):
    return learner.adapt(pictures(10, learner.example_shape), np.arange(10) % 5)


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


# One that takes inner steps and one that compares; the large tier has the others.
BY_DEFAULT = ("maml", "prototypical_network")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in BY_DEFAULT else [pytest.mark.large])
        # Amortized MAML draws random numbers, which ONNX has in another way.
        for name in sorted(LEARNERS.keys() - {"amortized_maml", "maml_regression"})
    ],
)
def test_an_adapted_model_predicts_the_same_in_onnx(name, tmp_path):
    assert_same_in_onnx(adapted(LEARNERS[name]()), str(tmp_path / "task.onnx"))


def test_an_encoder_embeds_the_same_in_onnx(tmp_path):
    learner = LEARNERS["prototypical_network"]()
    # With the statistics of the task: the learner's own encoder has none in this mode.
    of_task = adapted(learner).get_layer(learner.encoder.name)
    assert_same_in_onnx(of_task, str(tmp_path / "encoder.onnx"))
