"""`tfmeta evaluate`: of runs, of folders, and by other recipes."""

import copy
import json

import numpy as np
import pytest
import yaml

from tfmeta import training


def test_evaluating_gives_the_result_of_training(succeeds, waves, tmp_path):
    out = succeeds("evaluate", waves, "--output", tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    trained = json.loads((waves / "evaluation.json").read_text())
    # The run used one thread per operation: the last bits may differ.
    assert result["mean"] == pytest.approx(trained["mean"], rel=1e-4)
    assert result["n_episodes"] == 6
    assert (result["split"], result["seed"], result["protocol"]) == ("test", 0, "a tiny one")
    assert f"mse {result['mean']:.4f} ± {result['ci95']:.4f} (6 episodes)" in out
    assert "after 1 inner step: " in out
    assert "after 2 inner steps: " in out


def test_evaluating_takes_episodes_steps_split_and_seed(succeeds, two_digits, digits, tmp_path):
    results = []
    for i, (split, seed) in enumerate((("test", 0), ("test", 5), ("train", 0), ("validation", 0))):
        path = tmp_path / f"{i}.json"
        options = ("--n-episodes", 40, "--inner-steps", 3, "--split", split, "--seed", seed)
        succeeds("evaluate", digits, *options, "--output", path)
        result = json.loads(path.read_text())
        assert (result["n_episodes"], result["split"], result["seed"]) == (40, split, seed)
        assert len(result["by_inner_step"]) == 4
        assert result["inner_steps"] == two_digits["learner"]["test_inner_steps"]
        results.append(result["by_inner_step"])
    assert all(a != b for i, a in enumerate(results) for b in results[:i])


def test_too_small_numbers_are_told(fails, waves):
    fails(["evaluate", waves, "--n-episodes", 1], "n_episodes must be at least 2")
    fails(["evaluate", waves, "--inner-steps", -1], "inner_steps must be at least 0")


@pytest.mark.parametrize("command", ["evaluate", "adapt", "plot", "export", "info", "compare"])
def test_a_missing_run_is_told(fails, tmp_path, command):
    run, out = tmp_path / "no_run", tmp_path / "out.png"
    extra = {
        "adapt": ["--support", tmp_path, "--output", out],
        "evaluate": ["--output", out],
        "plot": ["--output", out],
        "export": ["--output", out],
    }.get(command, [])
    fails([command, run, *extra], f"There is no run folder or preset '{run}'", "`tfmeta list`")
    run.mkdir()
    fails([command, run, *extra], f"{run} is no run folder or preset", "best.keras", "preset.json")
    assert not out.exists()


def test_an_unknown_preset_is_told_with_the_nearest(fails):
    fails(
        ["evaluate", "maml_sinusoids"], "no run folder or preset", "did you mean 'maml_sinusoid'?"
    )
    fails(["evaluate", ""], "Which preset?")
    fails(["evaluate", "ftp://example.com/preset"], "ftp://")


# === All classes of a folder ===


@pytest.mark.large
def test_all_classes_of_a_folder_can_be_tested(
    succeeds, tfmeta, fails, pictures, classes, tmp_path
):
    recipe = yaml.safe_load((pictures / "recipe.yaml").read_text())
    # Two classes are for the test: too few for an episode of six.
    recipe["episodes"]["n_way"] = recipe["validation"]["n_way"] = 2
    recipe["evaluation"].update(n_way=6)
    recipe["network"] = {"name": "conv4", "filters": 2, "downsampling": "stride"}
    recipe["learner"] = {"name": "prototypical_network"}
    recipe["evaluation"].pop("inner_steps", None)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    own = {**recipe, "evaluation": {"n_episodes": 4}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    succeeds("train", tmp_path / "own.yaml", "--output", run)
    output = tmp_path / "result.json"
    other = ["evaluate", run, "--recipe", tmp_path / "recipe.yaml", "--output", output]
    fails(other, "6")
    code, out, err = tfmeta(*other, "--split", "all")
    assert code == 0, err
    assert "All: accuracy" in out
    assert "trained on" in err
    result = json.loads(output.read_text())
    assert (result["split"], result["episodes"]["n_way"]) == ("all", 6)
    assert result["data"]["split"] == "all"


def test_data_that_are_no_folder_are_not_tested_as_a_whole(fails, digits):
    fails(["evaluate", digits, "--split", "all"], "'digits'", "--split test")


# === By other recipes ===


@pytest.mark.large
def test_a_learner_is_tested_as_another_recipe_says(
    succeeds, fails, sinusoid, two_digits, waves, tmp_path
):
    other = {**sinusoid, "evaluation": {"n_episodes": 3, "n_shot": 7, "inner_steps": 1}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    output = tmp_path / "evaluation.json"
    succeeds("evaluate", waves, "--recipe", tmp_path / "other.yaml", "--output", output)
    result = json.loads(output.read_text())
    assert (result["n_episodes"], result["episodes"]["n_shot"]) == (3, 7)
    # A preset's recipe; it has as many inner steps as that says.
    out = succeeds("evaluate", waves, "--recipe", "maml_sinusoid", "--n-episodes", 25)
    assert "after 10 inner steps" in out
    # Without a recipe of its own, it is tested by the one that is given.
    preset = tmp_path / "without_a_recipe"
    training.load_learner(waves).save_to_preset(preset)
    fails(["evaluate", preset], "does not say by which recipe", "--recipe")
    succeeds("evaluate", preset, "--recipe", tmp_path / "other.yaml")
    fails(["evaluate", waves, "--recipe", "nothing"], "no run folder or preset 'nothing'")
    fails(["evaluate", waves, "--recipe", "nothing.yaml"], "No such file: nothing.yaml")
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(two_digits))
    fails(
        ["evaluate", waves, "--recipe", tmp_path / "digits.yaml"],
        "trained on examples of shape [1]",
        "have the shape [8, 8, 1]",
    )


@pytest.mark.large
def test_a_learner_is_tested_as_one_of_another_kind_is(
    succeeds, fails, trained, two_digits, digits, tmp_path
):
    more_ways = copy.deepcopy(two_digits)
    more_ways["evaluation"]["also"] = [{"n_way": 4}]
    (tmp_path / "more_ways.yaml").write_text(yaml.safe_dump(more_ways))
    fails(
        ["evaluate", digits, "--recipe", tmp_path / "more_ways.yaml"],
        "4 classes per episode, but this learner tells 2 apart",
    )
    prototypes = {
        **two_digits,
        "network": {"name": "conv4", "filters": 4, "downsampling": "stride"},
        "learner": {"name": "prototypical_network"},
        "evaluation": {"n_episodes": 6},
    }
    run = trained(tmp_path / "prototypes", prototypes)
    # It tells any number apart, and has no inner steps, which the recipe would have counted.
    output = tmp_path / "evaluation.json"
    succeeds("evaluate", run, "--recipe", tmp_path / "more_ways.yaml", "--output", output)
    result = json.loads(output.read_text())
    assert not {"inner_steps", "by_inner_step"} & result.keys()
    assert [s["episodes"]["n_way"] for s in [result, *result["also"]]] == [2, 4]
    assert (result["as"], result["trained_on"]) == ("digits", {"name": "digits"})
    fails(["evaluate", run, "--inner-steps", 1], "has no inner steps")
    assert np.isfinite(result["mean"])
