"""What importing the package costs and does."""

import json
import subprocess
import sys
from importlib import metadata
from typing import Any

import pytest

import tfmeta

FRESH = """
import json, sys
import tensorflow as tf, keras
# Where scikit-learn and matplotlib are installed, Keras itself imports parts of them.
before = set(sys.modules)
import tfmeta
imported = set(sys.modules) - before
tfmeta.configure_threads(3)
threads = tf.config.threading
configured = (
    threads.get_inter_op_parallelism_threads(), threads.get_intra_op_parallelism_threads()
)
tf.constant(1.0) + 1.0
try:
    tfmeta.configure_threads(2)
    late = None
except RuntimeError as error:
    late = str(error)
print(json.dumps({"imported": sorted(imported), "configured": configured, "late": late}))
"""


@pytest.fixture(scope="module")
def fresh() -> dict[str, Any]:
    """What happens in a process of its own."""
    command = [sys.executable, "-c", FRESH]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_importing_costs_little_more_than_tensorflow_and_keras(fresh: dict[str, Any]) -> None:
    heavy = {"tensorflow_datasets", "matplotlib", "yaml", "sklearn", "scipy", "pandas", "PIL"}
    assert "tfmeta.learners.maml" in fresh["imported"]
    assert [m for m in fresh["imported"] if m.split(".")[0] in heavy] == []


def test_importing_does_not_start_tensorflow(fresh: dict[str, Any]) -> None:
    assert fresh["configured"] == [3, 1]


def test_configuring_threads_too_late_says_what_to_do(fresh: dict[str, Any]) -> None:
    assert "call tfmeta.configure_threads() before" in fresh["late"]


def test_the_version_is_that_of_the_distribution() -> None:
    assert tfmeta.__version__ == metadata.version("tfmeta")


def test_every_public_name_exists() -> None:
    for module in (tfmeta, tfmeta.backbones, tfmeta.data, tfmeta.learners, tfmeta.testing):
        assert [n for n in module.__all__ if not hasattr(module, n)] == []
