"""The recipes of LEO on its authors' embeddings are run, on tiny files in the same layout."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml

from tfmeta import training
from tfmeta.cli import main
from tfmeta.recipes import Recipe

MODELS = Path(__file__).resolve().parents[1] / "models"
RECIPES = {
    path.parent.name: Recipe.load(path) for path in sorted(MODELS.glob("leo_*_imagenet_*/*.yaml"))
}


def test_there_are_recipes_of_both_data_sets_and_shots() -> None:
    expected = {(f"{n}ImageNet/center", k) for n in ("mini", "tiered") for k in (1, 5)}
    assert {(r.data.features, r.episodes.n_shot) for r in RECIPES.values()} == expected


# By default, `test_recipes.py` makes the learners of some of them.
@pytest.mark.large
@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_trains_and_tests(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TensorFlow has long started here.
    monkeypatch.setattr("tfmeta.threads.configure_threads", lambda: None)
    recipe = RECIPES[name]
    folder = tmp_path / "embeddings" / recipe.data.features
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, first in {"train": 0, "val": 10, "test": 20}.items():
        labels = np.repeat(np.arange(first, first + 6), 8)
        keys = np.array([f"{i}-n{k:04}-n{k:04}_{i}.jpg" for i, k in enumerate(labels)])
        content = {"keys": keys, "embeddings": rng.random((len(keys), 640), "float32")}
        (folder / f"{split}_embeddings.pkl").write_bytes(pickle.dumps(content, 2))

    content = recipe.to_dict()
    content["episodes"].update(n_query=2, meta_batch_size=2)
    content["learner"].update(inner_steps=1, finetuning_steps=1)
    content["training"].update(epochs=1, steps_per_epoch=2)
    content["validation"].update(n_query=2, n_episodes=2)
    content["evaluation"].update(n_query=2, n_episodes=2, inner_steps=2)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    run = tmp_path / "run"
    command = ["train", str(tmp_path / "tiny.yaml"), "--output", str(run)]
    assert main([*command, "--data-dir", str(tmp_path), "--debug"]) == 0

    evaluation = json.loads((run / training.EVALUATION).read_text())
    data = {"name": "embeddings", "features": recipe.data.features, "split": "test"}
    assert evaluation["data"] == data
    assert [step["inner_steps"] for step in evaluation["by_inner_step"]] == [0, 1, 2]
    learner = training.load_learner(run)
    assert learner.count_params() == 172_736  # As counted from the authors' code.
    assert np.isfinite(np.concatenate([np.ravel(v) for v in learner.trainable_variables])).all()
