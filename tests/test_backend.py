"""Another Keras backend than TensorFlow is an ImportError in one sentence."""

import os
import subprocess
import sys

import pytest

from tfmeta.backend import check_backend


@pytest.mark.parametrize("module", ["tfmeta", "tfmeta.data"])
@pytest.mark.parametrize("backend", ["numpy", "jax", "torch"])
def test_the_import_fails_at_once_and_says_what_to_do(backend, module):
    """Before Keras is imported, which would fail for want of the backend's package."""
    run = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: tfmeta needs Keras's TensorFlow backend, but Keras is set to"
    )
    assert backend in last
    assert "KERAS_BACKEND=tensorflow" in last


def test_a_keras_that_was_imported_counts_and_not_the_setting(monkeypatch):
    import keras

    monkeypatch.setenv("KERAS_BACKEND", "jax")
    check_backend()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ImportError, match="set to 'jax'"):
        check_backend()
