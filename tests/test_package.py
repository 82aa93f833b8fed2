"""What importing the package costs and does."""

import subprocess
import sys
from importlib import metadata

import tfmeta


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_importing_costs_little_more_than_tensorflow_and_keras() -> None:
    result = run(
        "import sys, tensorflow, keras\n"
        # Where scikit-learn and matplotlib are installed, Keras itself imports parts of them.
        "before = set(sys.modules)\n"
        "import tfmeta\n"
        "heavy = {'tensorflow_datasets', 'matplotlib', 'yaml', 'sklearn', 'scipy', 'pandas', 'PIL'}"
        "\nprint([m for m in set(sys.modules) - before if m.split('.')[0] in heavy])\n"
        # It may not start TensorFlow either: threads could no longer be configured.
        "tfmeta.configure_threads(3)\n"
        "print(tensorflow.config.threading.get_inter_op_parallelism_threads(),"
        " tensorflow.config.threading.get_intra_op_parallelism_threads())\n"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["[]", "3 1"]


def test_configuring_threads_too_late_says_what_to_do() -> None:
    result = run(
        "import tensorflow as tf, tfmeta\n"
        "tf.constant(1.0) + 1.0\n"
        "try:\n"
        "    tfmeta.configure_threads()\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
    )
    assert result.returncode == 0, result.stderr
    assert "call tfmeta.configure_threads() before" in result.stdout


def test_the_version_is_that_of_the_distribution() -> None:
    assert tfmeta.__version__ == metadata.version("tfmeta")


def test_every_public_name_exists() -> None:
    for module in (tfmeta, tfmeta.backbones, tfmeta.data, tfmeta.learners):
        assert [n for n in module.__all__ if not hasattr(module, n)] == []
