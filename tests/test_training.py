"""A run leaves what it says it does, and goes on after a kill as if there had been none.

Run as a script, this file is the run that is killed: see `killed_run`.
"""

import copy
import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

from tfmeta import training
from tfmeta.evaluation import evaluate
from tfmeta.recipes import Recipe, plan
from tfmeta.training import epoch_saver, meta_training
from tfmeta.training.epoch_saver import EpochSaver
from tfmeta.training.run_folder import LOCK, held

CONTENT: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "sinusoid"},
    "episodes": {"n_shot": 4, "n_query": 5, "meta_batch_size": 3},
    "network": {"name": "mlp", "hidden_units": [8]},
    "learner": {"name": "maml", "inner_learning_rate": 0.01},
    "training": {
        "epochs": 4,
        "steps_per_epoch": 3,
        "optimizer": {"class_name": "Adam", "config": {"learning_rate": 0.01}},
        "seed": 3,
    },
    "validation": {"n_query": 6, "n_episodes": 7},
    "evaluation": {"n_query": 7, "n_episodes": 10, "inner_steps": 2},
    "protocol": "a tiny one",
}
# With all that has to go on: dropout's seeds, moving averages, Adam's moments.
DROPOUT: dict[str, Any] = {
    **CONTENT,
    "data": {"name": "digits"},
    "episodes": {"n_way": 2, "n_shot": 2, "n_query": 3, "meta_batch_size": 3},
    "network": {"name": "linear"},
    "learner": {"name": "maml", "inner_learning_rate": 0.1, "batch_norm": "running"},
}


def recipe_of(content: dict[str, Any] = CONTENT, **changes: Any) -> Recipe:
    content = copy.deepcopy(content)
    content["training"].update(changes)
    return Recipe.from_dict(content)


def dropout_network(n_way: int, input_shape: Sequence[int]) -> keras.Model:
    """The network that replaces `linear` in the tests."""
    return keras.Sequential(
        [
            keras.Input(tuple(input_shape)),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(n_way),
        ]
    )


def all_weights(path: Path) -> list[np.ndarray]:
    model = keras.models.load_model(path)
    variables = [*model.variables, *model.optimizer.variables]
    assert len({v.path for v in model.optimizer.variables}) > 2
    # Keras does not save the state of seeds; each epoch begins with its own.
    return [np.asarray(v) for v in variables if v.name != "seed_generator_state"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "run"
    training.train(recipe_of(), folder)
    return folder


# === What a run leaves ===


def test_a_run_leaves_all_its_files_and_no_temporary(run: Path) -> None:
    # The lock file is empty, and some platforms remove it.
    assert sorted(p.name for p in run.iterdir() if p.name != LOCK) == [
        "adaptation_curve.png",
        "best.keras",
        "checkpoint.keras",
        "evaluation.json",
        "fits.png",
        "history.csv",
        "learning_curve.png",
        "logs",
        "recipe.yaml",
        "run.json",
    ]
    assert all(p.stat().st_size > 0 for p in run.rglob("*") if p.name != LOCK)
    assert {p.parent.name for p in run.rglob("*tfevents*")} == {"train", "validation"}


def test_the_recipe_is_kept_as_it_was_run(run: Path) -> None:
    assert Recipe.load(run).to_dict() == recipe_of().to_dict()


def test_the_details_tell_versions_and_preprocessing(run: Path) -> None:
    details = json.loads((run / "run.json").read_text())
    assert details["versions"]["keras"] == keras.__version__
    assert details["example_shape"] == [1]
    assert details["image_format"] is None
    assert details["data"] == {"train": None, "validation": None, "test": None}
    (session,) = details["sessions"]
    assert session == {
        "epoch": 0,
        **{name: details[name] for name in ("machine", "versions", "threads")},
    }


def test_the_details_list_the_classes_that_were_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(plan.NETWORKS, "linear", dropout_network)
    recipe = recipe_of(DROPOUT, epochs=1, steps_per_epoch=1)
    training.train(recipe, tmp_path)
    details = json.loads((tmp_path / "run.json").read_text())
    assert details["data"] == {"train": 4, "validation": 2, "test": 4}
    assert details["test_classes"] == plan.load_data(recipe, "test").class_names
    out = capsys.readouterr().out
    line = "digits: 4 / 2 / 4 classes for training / validation / test, examples of 8×8×1. MAML"
    assert out.startswith(line)


@pytest.mark.parametrize("version", ["0.1.0", "now"])
def test_each_session_of_a_resumed_run_is_kept(tmp_path: Path, version: str) -> None:
    class Stopped(Exception):
        pass

    def stop(*args: Any) -> None:
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpochSaver, "on_train_batch_begin", stop)
        with pytest.raises(Stopped):
            training.train(recipe_of(), tmp_path)
    details = json.loads((tmp_path / "run.json").read_text())
    details["machine"] = details["sessions"][0]["machine"] = "another one"
    if version == "0.1.0":
        details = {k: v for k, v in details.items() if k not in ("data", "sessions")}
        del details["test_classes"]
    (tmp_path / "run.json").write_text(json.dumps(details))
    training.train(recipe_of(), tmp_path)
    after = json.loads((tmp_path / "run.json").read_text())
    machines = [session["machine"] for session in after["sessions"]]
    assert machines == ["another one", after["machine"]]
    assert [s["epoch"] for s in after["sessions"]] == [None if version == "0.1.0" else 0, 0]
    assert training.about(tmp_path).example_shape == [1]


def test_the_history_has_a_row_per_epoch(run: Path) -> None:
    history = training.read_history(run)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    for row in history:
        assert row["seconds"] > 0
        assert np.isfinite([row["loss"], row["val_loss"]]).all()


def test_the_evaluation_tells_result_and_protocol(run: Path) -> None:
    result = json.loads((run / "evaluation.json").read_text())
    assert result["metric"] == "mse"
    assert result["n_episodes"] == 10
    assert result["protocol"] == "a tiny one"
    assert result["seed"] == 3
    assert result["episodes"]["n_query"] == 7
    assert [row["inner_steps"] for row in result["by_inner_step"]] == [0, 1, 2]
    assert result["by_inner_step"][1]["mean"] == pytest.approx(result["mean"], rel=1e-5)
    seconds = sum(row["seconds"] for row in training.read_history(run))
    assert result["training_seconds"] == pytest.approx(seconds)


def test_the_evaluation_is_that_of_the_best_learner_on_test_episodes(run: Path) -> None:
    recipe = recipe_of()
    episodes = plan.settings(recipe, "test")[0].episodes()
    result = evaluate(training.load_learner(run), episodes, 10)
    written = json.loads((run / "evaluation.json").read_text())
    assert (written["mean"], written["ci95"]) == pytest.approx((result.mean, result.ci95), rel=1e-5)


def test_the_checkpoint_is_that_of_the_last_epoch(run: Path) -> None:
    assert int(keras.models.load_model(run / "checkpoint.keras").optimizer.iterations) == 4 * 3


def test_the_learner_that_was_best_on_validation_is_kept(run: Path) -> None:
    history = training.read_history(run)
    best = min(history, key=lambda row: row["val_loss"])
    learner = training.load_learner(run)
    assert int(learner.optimizer.iterations) == best["epoch"] * 3
    recipe = recipe_of()
    validation = plan.settings(recipe, "validation")[0].episodes()
    again = learner.evaluate(validation, steps=3, verbose=0)
    assert again == pytest.approx(best["val_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("higher_is_better", "values", "kept"),
    [
        (True, [0.5, 0.7, 0.7, 0.6], 2),
        (False, [0.5, 0.4, 0.6, 0.3], 4),
        (False, [float("nan"), 0.4, 0.6, float("nan")], 2),
        (False, [float("inf"), 0.4, float("inf"), 0.3], 4),
        (True, [0.0, 0.0], 1),
    ],
)
def test_the_best_epoch_is_kept_and_ties_go_to_the_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    higher_is_better: bool,
    values: list[float],
    kept: int,
) -> None:
    monkeypatch.setattr(epoch_saver, "save", lambda model, path: path.write_text(str(model)))
    monkeypatch.setattr(EpochSaver, "model", None)
    callback = EpochSaver(tmp_path, "val_x", higher_is_better, [])
    callback._began = 0.0
    for epoch, value in enumerate(values):
        monkeypatch.setattr(EpochSaver, "model", epoch + 1)
        callback.on_epoch_end(epoch, {"loss": 1.0, "val_x": value})
    assert (tmp_path / "best.keras").read_text() == str(kept)
    assert (tmp_path / "checkpoint.keras").read_text() == str(len(values))


# === Resuming ===


def killed_run(folder: Path, point: str) -> None:
    """Runs the recipe with dropout until it is killed at a point that leaves it half-way."""
    plan.NETWORKS["linear"] = dropout_network

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if point == "in an epoch":
        # In the second step of the third epoch.
        class Killed(EpochSaver):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if len(self.history) == 2 and batch == 1:
                    kill()

        meta_training.EpochSaver = Killed  # type: ignore[misc]
    else:
        # With the best learner and the history of the epoch written, but not yet the checkpoint.
        save = epoch_saver.save

        def save_or_die(learner: Any, path: Path) -> None:
            if path.name == "checkpoint.keras" and learner.optimizer.iterations == 9:
                path.with_name(".checkpoint.0.keras").write_text("half")
                kill()
            save(learner, path)

        epoch_saver.save = save_or_die
    training.train(recipe_of(DROPOUT), folder)


def test_a_run_that_was_killed_goes_on_bit_by_bit_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.NETWORKS, "linear", dropout_network)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = training.train(recipe_of(DROPOUT), whole).own
    for point, epochs_before in (("in an epoch", 2), ("before the checkpoint", 3)):
        child = subprocess.run(
            [sys.executable, __file__, str(killed), point],
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert child.returncode == -signal.SIGKILL, child.stderr
        assert rows(killed) == rows(whole)[:epochs_before]
        assert int(keras.models.load_model(killed / "checkpoint.keras").optimizer.iterations) == 6
    result = training.train(recipe_of(DROPOUT), killed).own

    assert rows(killed) == rows(whole)
    assert len({row["loss"] for row in rows(whole)}) == 4
    for name in ("best.keras", "checkpoint.keras"):
        weights, resumed = all_weights(whole / name), all_weights(killed / name)
        for i, (a, b) in enumerate(zip(weights, resumed, strict=True)):
            np.testing.assert_array_equal(a, b, err_msg=f"{name}: {i}")
    np.testing.assert_array_equal(result.values, expected.values)


def test_dropout_masks_differ_between_epochs_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.NETWORKS, "linear", dropout_network)
    learner = plan.make_learner(recipe_of(DROPOUT), (8, 8, 1))
    callback = EpochSaver(tmp_path, "val_loss", False, [])
    callback.set_model(learner)
    seeds = []
    for epoch in (0, 1, 1):
        callback.on_epoch_begin(epoch)
        seeds.append(
            [
                tuple(np.asarray(v).tolist())
                for v in learner.non_trainable_variables
                if v.name == "seed_generator_state"
            ]
        )
    assert seeds[1] == seeds[2]
    assert len({*seeds[0], *seeds[1]}) == 4  # Two layers, two epochs.


def test_a_finished_run_is_evaluated_again_without_training(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {name: (run / name).read_bytes() for name in ("best.keras", "history.csv")}
    before = json.loads((run / "evaluation.json").read_text())

    def no_fit(*args: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(keras.Model, "fit", no_fit)
    recipe = recipe_of()
    training.train(recipe, run)
    training.train(recipe, run)  # The same object: nothing has written into it.
    assert json.loads((run / "evaluation.json").read_text()) == before
    assert {name: (run / name).read_bytes() for name in kept} == kept


# === What goes wrong ===


def test_the_folder_of_another_recipe_is_left_alone(run: Path) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="holds the run of another recipe"):
        training.train(recipe_of(seed=4), run)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_folder_that_another_process_trains_into_is_refused_and_left_alone(run: Path) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != LOCK}
    program = (
        "import sys, pathlib; from tfmeta.training.run_folder import held\n"
        "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"Another process is training into .*--output"):
            training.train(recipe_of(), run)
        other.kill()  # However it ends, the folder is free again.
    with held(run):
        pass
    after = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != LOCK}
    assert after == before


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(ValueError, match="neither an empty folder nor a run folder"):
            training.train(recipe_of(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": {"name": "digits"}, "episodes": {"n_way": 3}},
        {"network": {"name": "mlp", "hidden_units": 3}},
        {"learner": {"name": "maml", "inner_learning_rate": -1}},
    ],
)
def test_a_recipe_with_a_mistake_claims_no_folder(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        training.train(Recipe.from_dict({**CONTENT, **wrong}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_made_in_python_resumes_too(tmp_path: Path) -> None:
    content = {**CONTENT, "network": {"name": "mlp", "hidden_units": (4,)}}
    content["evaluation"] = {"n_episodes": 2}
    recipe = recipe_of(content, epochs=1)
    training.train(recipe, tmp_path)
    training.train(recipe, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exploding(EpochSaver):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_begin(epoch, logs)
            if epoch == 1:
                # Not that of a hidden layer: on CPUs a ReLU may make 0 of NaN.
                bias = self.model.trainable_variables[-1]
                bias.assign(bias * float("nan"))

    monkeypatch.setattr(meta_training, "EpochSaver", Exploding)
    with pytest.raises(ValueError, match=r"loss became nan in epoch 2\. Lower the inner or the ou"):
        training.train(recipe_of(), tmp_path)
    kept = keras.models.load_model(tmp_path / "checkpoint.keras")
    assert int(kept.optimizer.iterations) == 3
    assert all(np.isfinite(w).all() for w in kept.get_weights())
    assert [row["epoch"] for row in rows(tmp_path)] == ["1"]


def test_a_folder_without_a_learner_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no run folder: it has no best\.keras.*tfmeta train"):
        training.load_learner(tmp_path)


def test_more_epochs_are_another_recipe(run: Path) -> None:
    more = recipe_of().with_training(epochs=5)
    with pytest.raises(ValueError, match="another recipe"):
        training.train(more, run)
    assert yaml.safe_load((run / "recipe.yaml").read_text())["training"]["epochs"] == 4


if __name__ == "__main__":
    killed_run(Path(sys.argv[1]), sys.argv[2])
