"""The recipes of data that are not at hand are run, on tiny data in the same layout.

They were not trained here: these tests show that nothing but the data, and time, is missing.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tfmeta import training
from tfmeta.cli import main
from tfmeta.recipes import Recipe
from tfmeta.recipes.learners import InnerSteps
from tfmeta.recipes.plan import make_learner

MODELS = Path(__file__).resolve().parents[1] / "models"
SOURCES = ("mini_imagenet", "cifar_fs")
NAMES = sorted(p.name for p in MODELS.iterdir() if any(source in p.name for source in SOURCES))


# At full size, one recipe of each source; the others with narrow networks.
AT_FULL_SIZE = ("maml_cifar_fs_5w1s", "prototypical_network_mini_imagenet_5w1s")


def tiny(recipe: Recipe) -> dict[str, Any]:
    """The recipe with two steps, few and small episodes and, for most, a narrow network."""
    content = recipe.to_dict()
    if recipe.name not in AT_FULL_SIZE:
        content["network"]["filters"] = 8
    content["episodes"].update(n_way=min(recipe.episodes.n_way, 6), n_query=1, meta_batch_size=1)
    content["training"].update(epochs=1, steps_per_epoch=2)
    content["validation"].update(meta_batch_size=1, n_episodes=1)
    content["evaluation"].update(meta_batch_size=1, n_episodes=2, also=[])
    if isinstance(recipe.learner, InnerSteps):
        content["learner"].update(inner_steps=1, test_inner_steps=1)
        content["evaluation"].update(inner_steps=1)
    return content


def test_there_are_recipes_of_each_source() -> None:
    assert {Recipe.load(MODELS / name).data.name for name in NAMES} == set(SOURCES)


# By default, `test_recipes.py` makes the learners of some of them.
@pytest.mark.large
@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_trains_and_tests(
    name: str,
    mini_imagenet_dir: Path,
    cifar100_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # TensorFlow has long started here.
    monkeypatch.setattr("tfmeta.threads.configure_threads", lambda: None)
    recipe = Recipe.load(MODELS / name)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny(recipe)))
    is_cifar = recipe.data.name == "cifar_fs"
    data_dir = cifar100_dir if is_cifar else mini_imagenet_dir
    run = tmp_path / "run"
    command = ["train", str(tmp_path / "tiny.yaml"), "--output", str(run)]
    assert main([*command, "--data-dir", str(data_dir), "--debug"]) == 0

    evaluation = json.loads((run / training.EVALUATION).read_text())
    assert evaluation["data"] == {"name": recipe.data.name, "split": "test"}
    assert evaluation["n_episodes"] == 2
    assert (evaluation["episodes"]["n_way"], evaluation["episodes"]["n_shot"]) == (5, 1)
    assert ("by_inner_step" in evaluation) == isinstance(recipe.learner, InnerSteps)
    assert (run / "episodes.png").is_file()

    shape = (32, 32, 3) if is_cifar else (84, 84, 3)
    untrained = make_learner(Recipe.load(run), shape)
    trained = training.load_learner(run)
    assert type(trained) is type(untrained)
    before, after = (
        np.concatenate([np.ravel(v) for v in x.trainable_variables]) for x in (untrained, trained)
    )
    assert np.isfinite(after).all()
    assert not np.array_equal(before, after)

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
