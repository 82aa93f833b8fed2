"""`tfmeta tune`: what it writes, how it resumes, and what it refuses."""

import json

import pytest
import yaml

from tfmeta.recipes import Recipe
from tfmeta.tuning.recipe_space import recipe_space, with_values

pytest.importorskip("keras_tuner", reason="the extra tfmeta[tuning] is not installed")


def test_a_search_writes_a_recipe_resumes_and_starts_another(succeeds, fails, sinusoid, tmp_path):
    file, first, second = tmp_path / "recipe.yaml", tmp_path / "first", tmp_path / "second"
    file.write_text(yaml.safe_dump(sinusoid))
    names = ("--search", "inner_learning_rate", "--search", "meta_batch_size", "--steps", 2)
    succeeds("tune", file, "--output", first, "--trials", 2, *names)
    before = json.loads((first / "tuning.json").read_text())["trials"]
    out = succeeds("tune", file, "--output", first, "--trials", 3, *names)
    trials = json.loads((first / "tuning.json").read_text())["trials"]
    assert trials[:2] == before
    assert len(trials) == 3
    best = min(trials, key=lambda trial: trial["mse"])["values"]
    assert Recipe.load(first / "best.yaml") == with_values(Recipe.load(file), best)
    assert len((first / "trials.csv").read_text().splitlines()) == 4
    assert "trial\tinner_learning_rate\tmeta_batch_size\tmse\tseconds" in out
    fails(["tune", file, "--output", first, *names[:-1], 3], "holds a search with another steps")
    succeeds("tune", file, "--output", second, "--past", first, "--trials", 1, *names)
    (trial,) = json.loads((second / "tuning.json").read_text())["trials"]
    assert trial["values"] == pytest.approx(best)
    other = ["tune", file, "--output", tmp_path / "x", "--past", first, "--steps", 2]
    fails(other, "searched inner_learning_rate, meta_batch_size, but this search is over")
    fails([*other, "--search", "inner_rate"], "'inner_rate'", "did you mean 'inner_learning_rate'?")
    assert not (tmp_path / "x").exists()


def test_a_recipe_has_the_hyper_parameters_of_its_learner(two_digits):
    recipe = Recipe.from_dict(two_digits)
    values = {"inner_learning_rate": 0.1, "inner_steps": 3}
    values |= {"outer_learning_rate": 0.02, "meta_batch_size": 8}
    space = recipe_space(recipe)
    assert list(space.parameters) == list(values)
    changed = with_values(recipe, values).to_dict()
    assert changed["learner"] == {
        **two_digits["learner"],
        "inner_learning_rate": 0.1,
        "inner_steps": 3,
    }
    assert changed["episodes"]["meta_batch_size"] == 8
    assert changed["training"]["optimizer"]["config"] == {"learning_rate": 0.02}
    two_digits["learner"] = {"name": "prototypical_network"}
    schedule = {
        "class_name": "CosineDecay",
        "config": {"initial_learning_rate": 0.1, "decay_steps": 9},
    }
    two_digits["training"]["optimizer"] = {
        "class_name": "Adam",
        "config": {"learning_rate": schedule},
    }
    assert list(recipe_space(Recipe.from_dict(two_digits)).parameters) == ["meta_batch_size"]
    two_digits["training"]["epochs"] = 0
    with pytest.raises(ValueError, match="trains nothing that could be tuned"):
        recipe_space(Recipe.from_dict(two_digits))
