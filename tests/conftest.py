"""What tests of several folders share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def omniglot_dir() -> Path:
    """A directory of TensorFlow Datasets that has Omniglot; without one, the test is skipped."""
    repository = Path(__file__).resolve().parents[1]
    candidates = [repository.parent / "shared" / "tfds"]
    if os.environ.get("TFDS_DATA_DIR"):
        candidates.insert(0, Path(os.environ["TFDS_DATA_DIR"]))
    for folder in candidates:
        if (folder / "omniglot").is_dir():
            return folder
    pytest.skip(
        "needs the real Omniglot: neither TFDS_DATA_DIR nor ../shared/tfds has a folder `omniglot`"
    )


@pytest.fixture(scope="session")
def glyphs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of TensorFlow Datasets with the glyphs, made once for all tests."""
    from tfmeta.data.glyphs import Glyphs

    folder = tmp_path_factory.mktemp("tfds")
    Glyphs(data_dir=folder).download_and_prepare()
    return folder


# === Learners on tiny tasks ===


@pytest.fixture
def float64() -> Iterator[None]:
    """Keras's losses, too, compute in its default float type."""
    import keras

    for dtype in ("float64", "float32"):
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        if dtype == "float64":
            yield


@pytest.fixture
def meta_gradient() -> Callable[..., list[np.ndarray]]:
    """A function: what one training step subtracts from each trainable variable at rate 1."""
    import keras

    def by_sgd(learner: Any, inputs: Any, query_y: Any, loss: Any = "mse") -> list[np.ndarray]:
        learner.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=True)
        learner(inputs)
        before = learner.get_weights()
        start = [v.numpy() for v in learner.trainable_variables]
        learner.train_step((inputs, query_y))
        moved = [v.numpy() for v in learner.trainable_variables]
        learner.set_weights(before)
        return [a - b for a, b in zip(start, moved, strict=True)]

    return by_sgd


@pytest.fixture
def numeric_gradient() -> Callable[..., list[np.ndarray]]:
    """A function: central differences of `function(*arrays)`, by each element of each array."""

    def central(function: Callable[..., float], *arrays: Any) -> list[np.ndarray]:
        arrays = tuple(np.array(a, "float64") for a in arrays)
        gradients = [np.zeros_like(a) for a in arrays]
        for array, gradient in zip(arrays, gradients, strict=True):
            for index in np.ndindex(array.shape):
                value = array[index]
                sides = []
                for step in (1e-6, -1e-6):
                    array[index] = value + step
                    sides.append(function(*arrays))
                array[index] = value
                gradient[index] = (sides[0] - sides[1]) / 2e-6
        return gradients

    return central
