"""`tfmeta tune`: what it writes, how it resumes, and what it refuses."""

import json

import pytest
import yaml

from tfmeta.recipes import Recipe
from tfmeta.tuning.recipe_space import recipe_space, with_values

keras_tuner = pytest.importorskip("keras_tuner", reason="the extra tfmeta[tuning] is not installed")


NAMES = ("--search", "inner_learning_rate", "--search", "meta_batch_size", "--steps", 1)


def trials_in(folder):
    return json.loads((folder / "tuning.json").read_text())["trials"]


@pytest.fixture
def recipe_file(sinusoid, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(sinusoid))
    return tmp_path / "recipe.yaml"


def test_a_search_writes_a_recipe_and_refuses_what_does_not_fit(
    succeeds, fails, recipe_file, tmp_path
):
    first = tmp_path / "first"
    out = succeeds("tune", recipe_file, "--output", first, "--trials", 1, *NAMES)
    (trial,) = trials_in(first)
    expected = with_values(Recipe.load(recipe_file), trial["values"])
    assert Recipe.load(first / "best.yaml") == expected
    assert len((first / "trials.csv").read_text().splitlines()) == 2
    assert "trial\tinner_learning_rate\tmeta_batch_size\tmse\tseconds" in out
    again = ["tune", recipe_file, "--output", first, *NAMES[:-1], 3]
    fails(again, "holds a search with another steps")
    other = ["tune", recipe_file, "--output", tmp_path / "x", "--past", first]
    fails(other, "searched inner_learning_rate, meta_batch_size, but this search is over")
    misspelt = [*other, "--search", "inner_learning_rat"]
    fails(misspelt, "'inner_learning_rat'", "did you mean 'inner_learning_rate'?")
    fails([*other[:4], "--past", tmp_path], "no folder of a search: it has no tuning.json")
    assert not (tmp_path / "x").exists()


def interrupted_at_the_second(tuner, trial):
    if len(tuner.oracle.trials) == 2:
        raise KeyboardInterrupt
    keras_tuner.Tuner.on_trial_end(tuner, trial)


@pytest.mark.large
def test_a_search_resumes_and_starts_another(tfmeta, succeeds, recipe_file, monkeypatch, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    with monkeypatch.context() as patch:
        from tfmeta.tuning.recipe_tuning import _RecipeTuner

        patch.setattr(_RecipeTuner, "on_trial_end", interrupted_at_the_second)
        code, _, err = tfmeta("tune", recipe_file, "--output", first, "--trials", 2, *NAMES)
    assert code == 130
    assert "Finished trials are saved" in err
    succeeds("tune", recipe_file, "--output", first, "--trials", 2, *NAMES)
    before = trials_in(first)
    succeeds("tune", recipe_file, "--output", first, "--trials", 3, *NAMES)
    trials = trials_in(first)
    assert trials[:2] == before
    assert len(trials) == 3
    best = min(trials, key=lambda trial: trial["mse"])["values"]
    assert Recipe.load(first / "best.yaml") == with_values(Recipe.load(recipe_file), best)
    succeeds("tune", recipe_file, "--output", second, "--past", first, "--trials", 1, *NAMES)
    (trial,) = trials_in(second)
    assert trial["values"] == pytest.approx(best)


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
