"""`Resume` in `fit` of a script, as `tfmeta train` uses it."""

import copy
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import DENSE, most_are_large
from learners_made_small import make_learner as make_small

import tfmeta
from tfmeta import keras_internals
from tfmeta.callbacks import Resume, checkpoint
from tfmeta.callbacks.interval import Interval
from tfmeta.data.pipeline import at_step, episode_index

EPOCHS, STEPS = 3, 3


def make_learner(**options: Any) -> tfmeta.MAML:
    """A learner with all that has to go on: dropout, batch norm's averages, Adam's moments."""
    keras.utils.set_random_seed(5)
    network = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )
    learner = tfmeta.MAML(
        network,
        **{"inner_learning_rate": 0.01, "inner_loss": "mse", "batch_norm": "running", **options},
    )
    learner.compile(keras.optimizers.Adam(0.01, use_ema=True), metrics=["mae"])
    return learner


def fit(learner: Any, *callbacks: Any, **changes: Any) -> keras.callbacks.History:
    """Trains on meta-batches of sizes that are drawn."""
    sinusoids = tfmeta.data.load("sinusoid")
    options: dict[str, Any] = {
        "epochs": EPOCHS,
        "steps_per_epoch": STEPS,
        "validation_data": sinusoids.episodes(4, 5, 2, seed=1),
        "validation_steps": 2,
        "verbose": 0,
        **changes,
    }
    data = options.pop("x", sinusoids.episodes((2, 6), 5, meta_batch_size=2))
    return learner.fit(data, callbacks=list(callbacks), **options)


def state(learner: Any) -> list[np.ndarray]:
    """All variables, those of the optimizer and of seeds included."""
    found = [*learner.variables, *learner.optimizer.variables]
    assert any(keras_internals.is_seed_state(v) for v in found)
    return [keras.ops.convert_to_numpy(v) for v in found]


class Cut(Exception):
    """An interruption that nothing can catch in time, as that by a kill."""


class CuttingOff(keras.callbacks.Callback):
    """Ends `fit` after a step (from 0) of an epoch, counted from the beginning of the run."""

    def __init__(self, epoch: int, step: int, end: Callable[[], None]) -> None:
        super().__init__()
        self.epoch, self.step, self.end = epoch, step, end

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if (self.now, batch) == (self.epoch, self.step):
            self.end()


def cut() -> None:
    raise Cut


def test_fit_that_was_cut_off_ends_bit_for_bit_where_it_would_have_ended(tmp_path: Path) -> None:
    whole = make_learner()
    rates = {"monitor": "loss", "patience": 1, "min_delta": 1e9}
    expected = fit(whole, Resume(tmp_path / "whole"), keras.callbacks.ReduceLROnPlateau(**rates))
    assert float(whole.optimizer.learning_rate) < 0.01

    folder = tmp_path / "cut"
    for epoch, step, saved in ((1, 2, (1, 2)), (1, 0, (1, 2)), (2, 0, (2, 0))):
        resume = Resume(folder, checkpoint_every=1)
        lower = keras.callbacks.ReduceLROnPlateau(**rates)
        with pytest.raises(Cut):
            fit(make_learner(), resume, lower, CuttingOff(epoch, step, cut))
        progress = checkpoint.read_progress(folder / "checkpoint.keras")
        assert progress is not None
        assert progress.position == saved
    learner = make_learner()
    history = fit(learner, Resume(folder), keras.callbacks.ReduceLROnPlateau(**rates))

    for got, wanted in zip(state(learner), state(whole), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert history.epoch == expected.epoch == [0, 1, 2]
    assert history.history == expected.history
    assert learner.stop_training is False
    best = [checkpoint.read_progress(f / "best.keras") for f in (folder, tmp_path / "whole")]
    assert best[0] is not None
    assert best[1] is not None
    assert best[0].epoch == best[1].epoch == 1 + int(np.argmin(history.history["val_loss"]))


def batches_of_classes(seed: int) -> tf.data.Dataset:
    """Endless meta-batches of two tasks of three classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(7, 2, 6, 4)).astype("float32")
    y = np.tile(np.arange(6) % 3, (7, 2, 1))
    inputs = {"support_x": x, "support_y": y, "query_x": x[:, :, ::-1] + 0.1}
    return tf.data.Dataset.from_tensor_slices((inputs, y[:, :, ::-1].copy())).repeat()


# With what they draw at random.
DRAWING = {"leo": {"sample": True, "dropout_rate": 0.3}, "reptile": {"inner_rule": "adam"}}


@pytest.mark.parametrize(
    "name", most_are_large(sorted(tfmeta.learners.BY_NAME), {"prototypical_network"})
)
def test_every_learner_resumes_bit_for_bit(tmp_path: Path, name: str) -> None:
    def make() -> Any:
        keras.utils.set_random_seed(3)
        learner = make_small(name, DENSE, batch_norm="running", **DRAWING.get(name, {}))
        learner.compile("adam", metrics=["accuracy"])
        return learner

    options: dict[str, Any] = {
        "x": batches_of_classes(0),
        "validation_data": batches_of_classes(1),
        "epochs": 2,
    }
    whole = make()
    expected = fit(whole, Resume(tmp_path / "whole"), **options)
    with pytest.raises(Cut):
        fit(make(), Resume(tmp_path / "cut", 1), CuttingOff(1, 1, cut), **options)
    learner = make()
    history = fit(learner, Resume(tmp_path / "cut"), **options)
    assert history.history == expected.history
    found = [learner.variables, learner.optimizer.variables]
    wanted = [whole.variables, whole.optimizer.variables]
    if isinstance(learner, tfmeta.MetaGANMAML | tfmeta.MetaGANRelationNetwork):
        found.append(learner.generator_optimizer.variables)
        wanted.append(whole.generator_optimizer.variables)
    for a, b in zip(itertools.chain(*found), itertools.chain(*wanted), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


@pytest.mark.large
def test_a_run_that_is_over_is_loaded_and_goes_on_if_there_are_more_epochs(tmp_path: Path) -> None:
    whole = make_learner()
    expected = fit(whole, Resume(tmp_path), validation_data=None)
    assert not (tmp_path / "best.keras").exists()
    again = make_learner()
    history = fit(again, Resume(tmp_path), validation_data=None)
    assert history.history == expected.history
    for got, wanted in zip(state(again), state(whole), strict=True):
        np.testing.assert_array_equal(got, wanted)
    more = fit(make_learner(), Resume(tmp_path), validation_data=None, epochs=EPOCHS + 1)
    assert more.epoch == [0, 1, 2, 3]
    assert more.history["loss"][:EPOCHS] == expected.history["loss"]


SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_callbacks import CuttingOff, Resume, fit, make_learner
def end():
    os.kill(os.getpid(), signal.Signals[sys.argv[3]])
fit(make_learner(), CuttingOff(1, 1, end), Resume(sys.argv[2]))
"""


@pytest.mark.large
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_ends_a_script_with_the_conventional_code(
    tmp_path: Path, name: str
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path), name],
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = f"{tmp_path} is saved up to epoch 1 and 2 steps of the next. To go on, call fit again"
    assert said in child.stderr
    if name == "SIGTERM":
        assert "Traceback" not in child.stderr
        assert child.returncode == 128 + signal.SIGTERM
    else:  # Python ends by the signal itself, as it does after any KeyboardInterrupt.
        assert child.returncode == -signal.SIGINT


def test_a_second_signal_ends_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def end() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt, match="is saved up to epoch 1"):
            fit(make_learner(), CuttingOff(1, 1, end), Resume(tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)
    progress = checkpoint.read_progress(tmp_path / "checkpoint.keras")
    assert progress is not None
    assert progress.position == (1, 0)
    assert "saving first. Once more to stop at once." in capfd.readouterr().err


# === Numbers that are not finite ===


def spoil(data: tf.data.Dataset, step: int, task: int, value: float) -> tf.data.Dataset:
    """Puts a number into the support set of a task of a meta-batch."""

    def spoilt(number: Any, meta_batch: Any) -> Any:
        inputs, *rest = meta_batch
        x = inputs["support_x"]
        is_task = (tf.range(tf.shape(x)[0]) == task)[:, None, None]
        return {
            **inputs,
            "support_x": tf.where((number == step) & is_task, tf.constant(value), x),
        }, *rest

    return data.enumerate().map(spoilt)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "its support_x is not finite"),
        # The predictions are finite, their gradient's step is not.
        (1e25, r"inner step 1 made \S*dense/kernel not finite"),
    ],
)
def test_the_task_and_the_weight_that_are_not_finite_are_named(
    tmp_path: Path, value: float, said: str
) -> None:
    keras.utils.set_random_seed(1)
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="dense")])
    learner = tfmeta.MAML(network, inner_learning_rate=0.01, inner_loss="mse")
    learner.compile("adam")
    data = tfmeta.data.load("sinusoid").episodes(4, 5, 3)
    where = r"In epoch 2, after 1 of its steps: .*training step 5 is not finite"
    named = rf"{where}.* In task 2 of its meta-batch, {said}\. .* is saved up to epoch 1\."
    with pytest.raises(ValueError, match=named):
        fit(learner, Resume(tmp_path), x=spoil(data, 4, 2, value), validation_data=None)
    assert all(np.isfinite(w).all() for w in learner.get_weights())
    assert int(learner.optimizer.iterations) == 4


# === What is refused ===


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    fit(make_learner(), Resume(tmp_path, facts={"data": "sinusoids"}), epochs=1)
    before = (tmp_path / "checkpoint.keras").read_bytes()
    with pytest.raises(ValueError, match=r"another run: .*inner_learning_rate was 0.01, is 0.02"):
        fit(make_learner(inner_learning_rate=0.02), Resume(tmp_path, facts={"data": "sinusoids"}))
    with pytest.raises(ValueError, match=r"another run: facts.data was 'sinusoids', is None"):
        fit(make_learner(), Resume(tmp_path))
    with pytest.raises(ValueError, match=r"another run: steps_per_epoch was 3, is 4"):
        fit(make_learner(), Resume(tmp_path, facts={"data": "sinusoids"}), steps_per_epoch=4)
    assert (tmp_path / "checkpoint.keras").read_bytes() == before


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    def second() -> None:
        with pytest.raises(ValueError, match="Another process is training into"):
            fit(make_learner(), Resume(tmp_path))
        raise Cut

    with pytest.raises(Cut):
        fit(make_learner(), CuttingOff(0, 0, second), Resume(tmp_path))
    fit(make_learner(), Resume(tmp_path), epochs=1)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"Nothing can be written into .*Not a directory\. Choose"):
        fit(make_learner(), Resume(tmp_path / "file" / "run"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x": [1.0]}, r"needs episodes as a tf.data.Dataset.*got a list"),
        ({"steps_per_epoch": None, "x": "finite"}, "needs steps_per_epoch"),
        ({"initial_epoch": 2}, "leave initial_epoch out"),
        ({"callbacks": keras.callbacks.BackupAndRestore}, "Leave BackupAndRestore out"),
        ({"callbacks": keras.callbacks.ModelCheckpoint}, "Leave ModelCheckpoint.save_best_only"),
        ({"callbacks": keras.callbacks.EarlyStopping}, "Leave EarlyStopping.restore_best_weights"),
        ({"callbacks": keras.callbacks.SwapEMAWeights}, "Leave SwapEMAWeights out"),
        ({"facts": {"data": {1, 2}}}, "facts must be plain values"),
    ],
)
def test_what_could_not_resume_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    folder, changes = tmp_path / "run", copy.copy(changes)
    others = {
        keras.callbacks.BackupAndRestore: lambda: keras.callbacks.BackupAndRestore(tmp_path / "b"),
        keras.callbacks.ModelCheckpoint: lambda: keras.callbacks.ModelCheckpoint(
            str(tmp_path / "best.keras"), save_best_only=True
        ),
        keras.callbacks.EarlyStopping: lambda: keras.callbacks.EarlyStopping(
            restore_best_weights=True
        ),
        keras.callbacks.SwapEMAWeights: keras.callbacks.SwapEMAWeights,
    }
    callbacks = [others[changes.pop("callbacks")]()] if "callbacks" in changes else []
    if changes.get("x") == "finite":
        changes["x"] = tfmeta.data.load("sinusoid").episodes().take(3)
    resume = Resume(folder, facts=changes.pop("facts", None))
    with pytest.raises(ValueError, match=reason):
        fit(make_learner(), resume, *callbacks, **changes)
    assert not folder.exists()


def test_a_model_that_is_no_learner_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(TypeError, match="Resume is for fit of tfmeta's learners"):
        model.fit(np.ones((2, 1)), np.ones((2, 1)), verbose=0, callbacks=[Resume(tmp_path)])


@pytest.mark.parametrize("every", [0, -3, True, 1.5, "soon", "0s", "60"])
def test_an_interval_that_is_none_is_refused(tmp_path: Path, every: Any) -> None:
    with pytest.raises(ValueError, match=r"checkpoint_every must be .*100.*60s"):
        Resume(tmp_path, checkpoint_every=every)


def test_intervals_end_after_steps_or_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    steps, seconds = Interval(3), Interval("1.5 s")
    steps.begin(2)
    assert [steps.is_over(step) for step in (3, 4, 5)] == [False, False, True]
    assert not seconds.is_over(1000)
    now = 101.5
    assert seconds.is_over(0)


# === Where episodes go on ===


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("shard", [(0, 1), (1, 3)])
def test_episodes_begin_at_a_step_without_those_before(start: int, shard: tuple[int, int]) -> None:
    data = tfmeta.data.load("sinusoid").episodes((2, 6), 5, 2, seed=3, start=start, shard=shard)
    wanted = list(data.skip(4).take(2))
    twice = at_step(at_step(data, 1), 3)
    for got, expected in zip(list(twice.take(2)), wanted, strict=True):
        for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(expected), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shard", [(0, 1), (1, 3)])
def test_the_index_of_an_episode_finds_it(shard: tuple[int, int]) -> None:
    sinusoids = tfmeta.data.load("sinusoid")
    data = at_step(sinusoids.episodes(2, 5, 2, seed=3, start=7, shard=shard), 1)
    *_, (inputs, _) = data.take(3)
    index = episode_index(data, 2, 1)
    ((found, _),) = sinusoids.episodes(2, 5, 1, seed=3, start=index).take(1)
    np.testing.assert_array_equal(found["query_x"][0], inputs["query_x"][1])


def test_any_other_data_set_begins_at_a_step() -> None:
    assert [int(x) for x in at_step(tf.data.Dataset.range(5), 3)] == [3, 4]
