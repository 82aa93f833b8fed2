"""A run leaves what it says it does. How it resumes is tested in test_resuming.py."""

import json
import signal
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from tiny_runs import ALL_STATES, CONTENT, dropout_network, recipe_of, rows

from tfmeta import training
from tfmeta.callbacks import Resume, checkpoint
from tfmeta.callbacks.checkpoint import Progress
from tfmeta.callbacks.run import Run
from tfmeta.callbacks.run_files import LOCK, held
from tfmeta.evaluation import evaluate
from tfmeta.recipes import Recipe, network_makers, plan
from tfmeta.signals import deferred
from tfmeta.training import meta_training
from tfmeta.training.details import data_line, write_details
from tfmeta.training.recipe_resume import RecipeResume


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "run"
    training.train(recipe_of(), folder)
    return folder


NOTHING_TRAINED: dict[str, Any] = {
    **CONTENT,
    "data": {"name": "digits"},
    "episodes": {"n_way": 2, "n_shot": 2, "n_query": 3, "meta_batch_size": 2},
    "network": {"name": "mlp", "hidden_units": [4]},
    "learner": {"name": "simple_shot"},
    "training": {"epochs": 0, "seed": 3},
    "validation": {"n_episodes": 2},
    "evaluation": {"n_episodes": 4},
}


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
        "previous.keras",
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
        "step": 0,
        **{name: details[name] for name in ("machine", "versions", "threads")},
    }


def test_the_details_list_the_classes_of_each_split(tmp_path: Path) -> None:
    recipe = recipe_of(ALL_STATES)
    prepared = plan.prepare(recipe)
    write_details(tmp_path, prepared, Progress({}))
    details = json.loads((tmp_path / "run.json").read_text())
    for split, names in details["classes"].items():
        assert names == plan.load_data(recipe, split).class_names
    assert details["data"] == {"train": 4, "validation": 2, "test": 4}
    assert details["test_classes"] == plan.load_data(recipe, "test").class_names
    classes = "digits: 4 / 2 / 4 classes for training / validation / test"
    assert data_line(prepared).startswith(f"{classes}, examples of shape 8×8×1. MAML, ")


@pytest.mark.large
@pytest.mark.parametrize("version", ["0.1.0", "now"])
def test_each_session_of_a_resumed_run_is_kept(
    tmp_path: Path, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopped(Exception):
        pass

    def stop(*args: Any, **options: Any) -> None:
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resume, "on_train_batch_begin", stop)
        with pytest.raises(Stopped):
            training.train(recipe_of(epochs=1), tmp_path)
    details = json.loads((tmp_path / "run.json").read_text())
    details["machine"] = details["sessions"][0]["machine"] = "another one"
    if version == "0.1.0":
        newer = ("classes", "data", "sessions", "test_classes")
        details = {k: v for k, v in details.items() if k not in newer}
    (tmp_path / "run.json").write_text(json.dumps(details))
    training.train(recipe_of(epochs=1), tmp_path)
    after = json.loads((tmp_path / "run.json").read_text())
    machines = [session["machine"] for session in after["sessions"]]
    assert machines == ["another one", after["machine"]]
    assert [s["epoch"] for s in after["sessions"]] == [None if version == "0.1.0" else 0, 0]
    assert training.about(tmp_path).example_shape == [1]
    said = f"Since the session before: the machine was another one, is {after['machine']}."
    assert said in capsys.readouterr().out


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


def test_the_checkpoints_are_those_of_the_last_two_epochs(run: Path) -> None:
    for name, epoch in (("checkpoint.keras", 4), ("previous.keras", 3)):
        assert int(keras.models.load_model(run / name).optimizer.iterations) == epoch * 3
        progress = checkpoint.read_progress(run / name)
        assert progress is not None
        assert (progress.epoch, progress.step, len(progress.history)) == (epoch, 0, epoch)


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
        (True, [float("nan"), float("nan")], 1),
    ],
)
def test_the_best_epoch_is_kept_and_ties_go_to_the_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    higher_is_better: bool,
    values: list[float],
    kept: int,
) -> None:
    class Learner:
        stop_training, optimizer = False, keras.optimizers.SGD()
        non_trainable_variables = ()

        def __init__(self, epoch: int) -> None:
            self.epoch = epoch

        def save(self, path: Path) -> None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("epoch", str(self.epoch))

        def get_weights(self) -> list[np.ndarray]:
            return [np.zeros(2)]

    def epoch_in(name: str) -> int:
        with zipfile.ZipFile(tmp_path / name) as archive:
            return int(archive.read("epoch"))

    metric = "val_accuracy" if higher_is_better else "val_loss"
    callback = Resume(tmp_path)
    callback._run, callback._began = Run({}, 1, not higher_is_better), 0.0
    with deferred() as callback._deferral:
        pass
    for epoch, value in enumerate(values):
        monkeypatch.setattr(Resume, "model", Learner(epoch + 1))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            callback.on_epoch_end(epoch, {"loss": 1.0, metric: value})
        assert bool(caught) == (not np.isfinite(value))
    assert epoch_in("best.keras") == callback.progress.best_epoch == kept
    assert epoch_in("checkpoint.keras") == len(values)


def test_dropout_masks_differ_between_epochs_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(network_makers.NETWORKS, "linear", dropout_network)
    prepared = plan.prepare(recipe_of(ALL_STATES))
    learner, callback = prepared.learner, RecipeResume(prepared, tmp_path)
    callback.set_model(learner)
    callback._has_told = True
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


@pytest.mark.large
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
    # Not `held`, whose import takes seconds.
    program = (
        "import sys, filelock\n"
        "with filelock.FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run / LOCK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"Another process is training into .*another folder"):
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


@pytest.mark.large
def test_a_recipe_made_in_python_resumes_too(tmp_path: Path) -> None:
    content = {**CONTENT, "network": {"name": "mlp", "hidden_units": (4,)}}
    content["evaluation"] = {"n_episodes": 2}
    recipe = recipe_of(content, epochs=1)
    training.train(recipe, tmp_path)
    training.train(recipe, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exploding(RecipeResume):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_begin(epoch, logs)
            if epoch == 1:
                # Not that of a hidden layer: on CPUs a ReLU may make 0 of NaN.
                bias = self.model.trainable_variables[-1]
                bias.assign(bias * float("nan"))

    monkeypatch.setattr(meta_training, "RecipeResume", Exploding)
    said = (
        r"In epoch 2, after . of its steps: The loss .*[Ll]ower .*rate.* In task 0 of its "
        r"meta-batch \(episode 9\), \S*bias is not finite\. `tfmeta replay \S+ --step 4` shows its "
        r"tasks\. .*is saved up to epoch 1\."
    )
    with pytest.raises(ValueError, match=said):
        training.train(recipe_of(), tmp_path)
    monkeypatch.undo()

    class Spoilt(RecipeResume):
        def on_test_begin(self, logs: Any = None) -> None:
            super().on_test_begin(logs)
            # The last step may spoil a weight after a loss that was finite.
            bias = self.model.trainable_variables[-1]
            bias.assign(bias * float("nan"))

    # Nor if a signal asks to save within an epoch.
    class SpoiltAndStopped(RecipeResume):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            bias = self.model.trainable_variables[-1]
            bias.assign(bias * float("nan"))
            self._deferral.number = signal.SIGTERM
            super().on_train_batch_end(batch, logs)

    monkeypatch.setattr(meta_training, "RecipeResume", SpoiltAndStopped)
    with pytest.raises(ValueError, match=r"after 1 of its steps: A weight became infinite or NaN"):
        training.train(recipe_of(), tmp_path)
    monkeypatch.setattr(meta_training, "RecipeResume", Spoilt)
    with pytest.raises(ValueError, match=r"after 3 of its steps: A weight became infinite or NaN"):
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


# === Runs that train nothing ===


def test_a_run_of_no_epochs_tests_the_network_as_it_is(tmp_path: Path) -> None:
    recipe = recipe_of(NOTHING_TRAINED)
    report = training.train(recipe, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {".lock", "recipe.yaml", "run.json", "best.keras", "evaluation.json"}
    assert report.training_seconds is None
    prepared = plan.prepare(recipe)
    learner = training.load_learner(tmp_path / "run")
    for ours, theirs in zip(prepared.learner.encoder.weights, learner.encoder.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again = training.train(recipe, tmp_path / "run")
    assert (
        again.own.mean
        == report.own.mean
        == pytest.approx(evaluate(learner, prepared.tests[0].episodes(), 4).mean)
    )


def test_simple_shot_has_the_mean_feature_of_the_training_classes(tmp_path: Path) -> None:
    recipe = recipe_of(NOTHING_TRAINED)
    training.train(recipe, tmp_path)
    learner, source = training.load_learner(tmp_path), plan.prepare(recipe).train.source
    examples = source.fetch(np.concatenate(source.rows))
    expected = learner.encoder(examples).numpy().mean(axis=0)
    np.testing.assert_allclose(learner.feature_mean, expected, rtol=1e-4, atol=1e-6)
    assert np.any(expected)


# === A step again ===


def test_a_step_is_looked_at_again(run: Path, tmp_path: Path) -> None:
    """From the checkpoint before it, from the beginning, and as fit itself takes it."""
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    from_checkpoint = training.replay(run, 11)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
    assert (from_checkpoint.begun_from, from_checkpoint.n_steps) == ("previous.keras", 1)
    assert from_checkpoint.episodes == [30, 31, 32]
    (tmp_path / "recipe.yaml").write_bytes((run / "recipe.yaml").read_bytes())
    anew = training.replay(tmp_path, 11)
    assert (anew.begun_from, anew.n_steps) == ("", 10)
    assert anew.reports == from_checkpoint.reports
    assert all(report.trouble is None for report in anew.reports)

    prepared = plan.prepare(recipe_of())
    prepared.learner.fit(prepared.train.episodes(), steps_per_epoch=10, verbose=0)
    history = prepared.learner.fit(prepared.train.episodes(30), steps_per_epoch=1, verbose=0)
    mean = np.mean([report.loss for report in anew.reports])
    assert history.history["loss"] == [pytest.approx(mean, rel=1e-5)]


def test_a_step_that_there_is_not_is_refused(run: Path, tmp_path: Path) -> None:
    for step in (0, 13):
        with pytest.raises(ValueError, match=r"are 1 . 12 \(4 epochs of 3\); got step"):
            training.replay(run, step)
    with pytest.raises(ValueError, match=r"is no run folder: it has no recipe\.yaml"):
        training.replay(tmp_path, 1)
