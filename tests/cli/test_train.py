"""`tfmeta train`: what it writes, and mistakes in a recipe."""

import os
import signal
from typing import Any

import pytest
import yaml

from tfmeta.callbacks import Resume


def test_training_writes_a_run(waves, digits, pictures):
    for run in (waves, digits, pictures):
        for name in ("best.keras", "evaluation.json", "learning_curve.png"):
            assert (run / name).is_file()
    assert (pictures / "episodes.png").is_file()
    assert not (digits / "episodes.png").exists()


@pytest.mark.large
def test_training_takes_epochs_and_seed(succeeds, fails, waves, tmp_path):
    options = ("--output", tmp_path / "run", "--epochs", 2, "--seed", 7)
    succeeds("train", waves.parent, *options)
    kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["training"]
    assert (kept["epochs"], kept["seed"]) == (2, 7)
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3
    fails(["train", waves.parent, "--output", tmp_path / "x", "--epochs", 0], "epochs")


@pytest.mark.large
def test_the_next_commands_are_shown_and_work(succeeds, transductive, waves, halves, tmp_path):
    # A run that is finished is only tested again.
    out = succeeds("train", transductive.parent, "--output", transductive)
    (adapt,) = (line for line in out.splitlines() if "tfmeta adapt" in line)
    assert adapt.endswith("--batch-norm support")
    words = adapt.split("tfmeta ")[1].split()
    given = {"FOLDER_OR_CSV": halves, "TASK": tmp_path / "task"}
    succeeds(*(given.get(word, word) for word in words))
    out = succeeds("train", waves.parent, "--output", waves)
    assert "tfmeta adapt" in out
    assert "--batch-norm" not in out


def test_a_mistake_in_a_recipe_is_told(fails, sinusoid, tmp_path):
    sinusoid["network"] = {"name": "mlp", "hiden_units": [3]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(sinusoid))
    command = ["train", tmp_path, "--output", tmp_path / "run"]
    fails(command, "hiden_units", "did you mean 'hidden_units'?")
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_terminated_says_how_to_go_on(tfmeta, sinusoid, tmp_path):
    def terminate(self: Any, batch: int, logs: Any = None) -> None:
        if batch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        on_train_batch_end(self, batch, logs)

    on_train_batch_end = Resume.on_train_batch_end
    sinusoid["training"]["steps_per_epoch"] = 3
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(sinusoid))
    run = tmp_path / "run"
    command = ("train", tmp_path, "--output", run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resume, "on_train_batch_end", terminate)
        code, _, err = tfmeta(*command)
    assert code == 128 + signal.SIGTERM
    assert err == (
        f"tfmeta: ended by SIGTERM. {run} is saved up to epoch 0 and 2 steps of the next. To go "
        "on, repeat the command.\n"
    )
    # Nothing that was finished is lost: the run begins again.
    os.truncate(run / "checkpoint.keras", 1000)
    code, out, err = tfmeta(*command)
    assert code == 0
    assert err.startswith(f"tfmeta: warning: {run}/checkpoint.keras was truncated")
    assert err.endswith("No epoch was finished: training starts anew.\n")
    assert "Resuming" not in out
    assert (run / "evaluation.json").is_file()
