"""How commands are run in tests, and small runs that several files share."""

import copy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tfmeta import cli

SCRIPT = Path(sys.executable).with_name("tfmeta")

SINUSOID: dict[str, Any] = {
    "name": "waves",
    "data": {"name": "sinusoid"},
    "episodes": {"n_shot": 4, "n_query": 5, "meta_batch_size": 3},
    "network": {"name": "mlp", "hidden_units": [8]},
    "learner": {"name": "maml", "inner_learning_rate": 0.01},
    "training": {"epochs": 1, "steps_per_epoch": 2, "optimizer": "adam"},
    "validation": {"n_episodes": 3},
    "evaluation": {"n_episodes": 6, "inner_steps": 2},
    "protocol": "a tiny one",
}
DIGITS: dict[str, Any] = {
    **SINUSOID,
    "name": "digits",
    "data": {"name": "digits"},
    "episodes": {"n_way": 2, "n_shot": 2, "n_query": 3, "meta_batch_size": 3},
    "network": {"name": "linear"},
    "learner": {"name": "maml", "inner_learning_rate": 0.5, "test_inner_steps": 6},
}


@pytest.fixture
def sinusoid() -> dict[str, Any]:
    """A tiny recipe for regression."""
    return copy.deepcopy(SINUSOID)


@pytest.fixture
def two_digits() -> dict[str, Any]:
    """A tiny recipe for classification."""
    return copy.deepcopy(DIGITS)


# === Running commands ===


@pytest.fixture
def tfmeta(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """A function: runs a command in this process; returns its exit code, stdout and stderr."""
    # TensorFlow has already started here, too late for threads.
    monkeypatch.setattr("tfmeta.threads.configure_threads", lambda: None)

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def succeeds(tfmeta: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """A function: runs a command that succeeds; returns its stdout."""

    def run(*arguments: Any) -> str:
        code, out, err = tfmeta(*arguments)
        assert code == 0, err
        return out

    return run


@pytest.fixture
def check_error() -> Callable[..., None]:
    """A function: checks that a command failed with one line that has these parts."""

    def check(result: tuple[int, str, str], *parts: str) -> None:
        code, _, stderr = result
        assert code == 1
        assert stderr.startswith("tfmeta: error: ")
        assert stderr.count("\n") == 1
        for part in parts:
            assert part in stderr
        for noise in ("Traceback", "user code", "{{", "function_node"):
            assert noise not in stderr

    return check


@pytest.fixture
def fails(
    tfmeta: Callable[..., tuple[int, str, str]], check_error: Callable[..., None]
) -> Callable[..., None]:
    """A function: runs a command that fails with one line that has these parts."""

    def run(arguments: Sequence[Any], *parts: str) -> None:
        check_error(tfmeta(*arguments), *parts)

    return run


@pytest.fixture(scope="session")
def script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function: runs a command as a user does."""

    def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [SCRIPT, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, **options)

    return run


@pytest.fixture(scope="session")
def trained() -> Callable[[Path, dict[str, Any]], Path]:
    """A function: trains by a recipe in a folder; returns the run folder."""

    def train(folder: Path, recipe: dict[str, Any]) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tfmeta.threads.configure_threads", lambda: None)
            assert cli.main(["train", str(folder), "--output", str(folder / "run")]) == 0
        return folder / "run"

    return train


# === Runs ===


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="session")
def waves(work: Path, trained: Callable[..., Path]) -> Path:
    """A run on sinusoids."""
    return trained(work / "waves", SINUSOID)


@pytest.fixture(scope="session")
def digits(work: Path, trained: Callable[..., Path]) -> Path:
    """A run on digits, which are arrays rather than files."""
    return trained(work / "digits", DIGITS)


@pytest.fixture(scope="session")
def draw() -> Callable[..., None]:
    """A function: draws a picture whose upper (kind 0) or lower (kind 1) half is dark."""

    def draw(path: Path, kind: int, rng: np.random.Generator, size: int = 12) -> None:
        pixels = rng.integers(150, 256, size=(size, size + 3), dtype=np.uint8)
        rows = slice(0, size // 2) if kind == 0 else slice(size // 2, size)
        pixels[rows] //= 5
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    return draw


@pytest.fixture(scope="session")
def classes(work: Path, draw: Callable[..., None]) -> Path:
    """A folder of images of ten classes."""
    rng = np.random.default_rng(0)
    for k in range(10):
        for i in range(5):
            draw(work / "classes" / f"class{k}" / f"{i}.png", k % 2, rng)
    return work / "classes"


@pytest.fixture(scope="session")
def pictures(work: Path, classes: Path, trained: Callable[..., Path]) -> Path:
    """A run on a folder of images."""
    image_format = {"height": 8, "width": 8, "channels": 1, "invert": True}
    data = {"name": str(classes), "image_format": image_format}
    return trained(work / "pictures", {**DIGITS, "name": "pictures", "data": data})


@pytest.fixture(scope="session")
def halves(work: Path, draw: Callable[..., None]) -> Path:
    """A support folder of two classes, named so that their order is not that of the kinds."""
    rng = np.random.default_rng(1)
    for i in range(4):
        draw(work / "halves" / "upper" / f"{i}.png", 0, rng)
        draw(work / "halves" / "lower" / f"{i}.png", 1, rng, size=20)
    return work / "halves"


@pytest.fixture(scope="session")
def transductive(work: Path, pictures: Path, trained: Callable[..., Path]) -> Path:
    """A run on a folder of images with batch norm in the transductive mode."""
    recipe = yaml.safe_load((pictures / "recipe.yaml").read_text())
    recipe["network"] = {"name": "conv4", "filters": 2, "downsampling": "stride"}
    # It compares: inner steps through convolutions take long to trace.
    recipe["learner"] = {"name": "prototypical_network"}
    del recipe["evaluation"]["inner_steps"]
    return trained(work / "transductive", {**recipe, "name": "transductive"})
