"""The gate refuses what must not be published, names it, and lets through what may be."""

import keras
import numpy as np
import pytest

from tfmeta.serving import ServableError, export, gate
from tfmeta.serving.warmup import read_requests

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
    request = read_requests(version)[-1]
    answer = gate.run(gate.load(version), request)["logits"]
    scale = np.abs(answer).max()
    gate.check_agreement(version, [(request, {"logits": answer + allowed * scale})], compute_dtype)
    with pytest.raises(ServableError, match="must predict as the model that was exported") as error:
        expected = [(request, {"logits": answer + refused * scale})]
        gate.check_agreement(version, expected, compute_dtype)
    assert "depend" not in str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_servable_says_what_it_computes_in(dtype, tmp_path):
    model = dense(dtype if dtype == "float32" else f"mixed_{dtype}")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", model.call, [keras.InputSpec(shape=(None, 3), dtype="float32")])
    archive.write_out(tmp_path / "1", verbose=False)
    assert gate._compute_dtype(dict(gate._reachable(tmp_path / "1"))) == dtype


# === What fails ===


def test_a_signature_that_fails_is_named(tmp_path):
    model = dense()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    message = "'serving_default' fails on a warmup request: the predictions for x must be finite"
    with pytest.raises(ServableError, match=message):
        export(model, tmp_path / "nan", output_kind="logits")
    assert not (tmp_path / "nan").exists()
