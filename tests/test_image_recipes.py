"""The recipes of data that are not at hand are run, on tiny data in the same layout.

They were not trained here: these tests show that nothing but the data, and time, is missing.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tfmeta import training
from tfmeta.backbones.efficientnet_lite0_weights import PACKAGE
from tfmeta.cli import main
from tfmeta.recipes import Recipe
from tfmeta.recipes.learners import InnerSteps
from tfmeta.recipes.plan import make_learner

MODELS = Path(__file__).resolve().parents[1] / "models"
SOURCES = ("mini_imagenet", "cifar_fs", "oxford_flowers102", "caltech_birds2011")
RECIPES = {path.parent.name: Recipe.load(path) for path in sorted(MODELS.glob("*/recipe.yaml"))}
NAMES = [name for name, recipe in RECIPES.items() if recipe.data.name in SOURCES]
ENCODER = "efficientnet_lite0"
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed"
)


def is_photographs(recipe: Recipe) -> bool:
    return recipe.data.name in ("oxford_flowers102", "caltech_birds2011")


# At full size, one recipe of each source; the others with narrow networks.
AT_FULL_SIZE = ("maml_cifar_fs_5w1s", "prototypical_network_mini_imagenet_5w1s")


def tiny(recipe: Recipe) -> dict[str, Any]:
    """The recipe with two steps, few and small episodes and, for most, a narrow network."""
    content = recipe.to_dict()
    if recipe.network.name == ENCODER:
        content["network"].pop("resize_to", None)
    elif recipe.name not in AT_FULL_SIZE:
        content["network"]["filters"] = 8
    if is_photographs(recipe):
        content["data"]["image_size"] = [32, 32]
    content["episodes"].update(n_way=min(recipe.episodes.n_way, 6), n_query=1, meta_batch_size=1)
    if recipe.training.epochs:
        content["training"].update(epochs=1, steps_per_epoch=2)
    content["validation"].update(meta_batch_size=1, n_query=1, n_episodes=1)
    content["evaluation"].update(meta_batch_size=1, n_query=1, n_episodes=2, also=[])
    if isinstance(recipe.learner, InnerSteps):
        content["learner"].update(inner_steps=1, test_inner_steps=1)
        content["evaluation"].update(inner_steps=1)
    return content


def test_there_are_recipes_of_each_source() -> None:
    assert {RECIPES[name].data.name for name in NAMES} == set(SOURCES)


@pytest.fixture(scope="module")
def photographs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of TensorFlow Datasets with tiny flowers and birds, of their builders' features.

    Each class has two images for training and one for the test, of different sizes: the class in
    red, and noise in the others.
    """
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(0)

    def examples(builder: Any, numbers: range) -> Iterator[tuple[str, dict[str, Any]]]:
        known = set(builder.info.features)
        for label in range(builder.info.features["label"].num_classes):
            for i in numbers:
                image = rng.integers(0, 256, (34 + i, 40, 3), dtype=np.uint8)
                image[..., 0] = label
                file = f"{label}_{i}.jpg"
                example = {"image": image, "label": label, "file_name": file}
                example |= {"image/filename": file, "label_name": str(label)}
                example["bbox"] = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
                example["segmentation_mask"] = image[..., :1]
                yield file, {name: example[name] for name in known}

    def splits(builder: Any, manager: Any) -> dict[str, Any]:
        return {"train": examples(builder, range(2)), "test": examples(builder, range(2, 3))}

    for name in ("oxford_flowers102", "caltech_birds2011"):
        builder = tfds.builder(name, data_dir=folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(builder), "_split_generators", splits)
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=config)
    return folder


# By default, `test_recipes.py` makes the learners of some of them.
@pytest.mark.large
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs_weights if RECIPES[name].network.name == ENCODER else [])
        for name in NAMES
    ],
)
def test_the_recipe_trains_and_tests(
    name: str,
    mini_imagenet_dir: Path,
    cifar100_dir: Path,
    photographs_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # TensorFlow has long started here.
    monkeypatch.setattr("tfmeta.threads.configure_threads", lambda: None)
    recipe = RECIPES[name]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny(recipe)))
    data_dir, size = {
        "cifar_fs": (cifar100_dir, 32),
        "mini_imagenet": (mini_imagenet_dir, 84),
    }.get(recipe.data.name, (photographs_dir, 32))
    run = tmp_path / "run"
    command = ["train", str(tmp_path / "tiny.yaml"), "--output", str(run)]
    assert main([*command, "--data-dir", str(data_dir), "--debug"]) == 0

    evaluation = json.loads((run / training.EVALUATION).read_text())
    assert evaluation["data"] == {"name": recipe.data.name, "split": "test"}
    assert evaluation["n_episodes"] == 2
    assert (evaluation["episodes"]["n_way"], evaluation["episodes"]["n_shot"]) == (5, 1)
    assert ("by_inner_step" in evaluation) == isinstance(recipe.learner, InnerSteps)
    assert (run / "episodes.png").is_file()

    untrained = make_learner(Recipe.load(run), (size, size, 3))
    trained = training.load_learner(run)
    assert type(trained) is type(untrained)
    if recipe.training.epochs == 0:
        # The mean of the training classes alone is new.
        for a, b in zip(untrained.encoder.weights, trained.encoder.weights, strict=True):
            np.testing.assert_array_equal(a, b)
        assert np.any(trained.feature_mean)
        assert not np.any(untrained.feature_mean)
        return
    before, after = (
        np.concatenate([np.ravel(v) for v in x.trainable_variables]) for x in (untrained, trained)
    )
    assert np.isfinite(after).all()
    assert not np.array_equal(before, after)
    if recipe.network.name != ENCODER:  # Its batch norm is frozen.
        modes = {setting.batch_norm for setting in recipe.evaluation.also} - {None}
        assert modes
        assert {trained.with_batch_norm(mode).batch_norm for mode in modes} == modes


@pytest.mark.parametrize(
    ("name", "shape", "features"),
    [
        ("maml_mini_imagenet_5w1s", (84, 84, 3), 5 * 5 * 32),
        ("meta_lstm_mini_imagenet_5w1s", (84, 84, 3), 5 * 5 * 32),
        ("prototypical_network_mini_imagenet_5w1s", (84, 84, 3), 5 * 5 * 64),
        ("maml_cifar_fs_5w1s", (32, 32, 3), 2 * 2 * 32),
        ("prototypical_network_cifar_fs_5w1s", (32, 32, 3), 2 * 2 * 64),
    ],
)
def test_the_network_has_the_published_features(
    name: str, shape: tuple[int, ...], features: int
) -> None:
    learner: Any = make_learner(Recipe.load(MODELS / name), shape)
    network = learner.encoder if hasattr(learner, "encoder") else learner.network
    assert network.get_layer("flatten").output.shape == (None, features)


def test_the_relation_network_has_the_published_maps() -> None:
    recipe = Recipe.load(MODELS / "relation_network_mini_imagenet_5w1s")
    learner: Any = make_learner(recipe, (84, 84, 3))
    assert learner.encoder.output_shape == (None, 19, 19, 64)
    assert learner.relation_module.get_layer("flatten").output.shape == (None, 3 * 3 * 64)
