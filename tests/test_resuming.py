"""A run goes on after a kill or a signal as if there had been none, and notices what was lost."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from tiny_runs import (
    ADAM,
    ALL_STATES,
    POINTS,
    all_weights,
    assert_same_run,
    dropout_network,
    fill_the_disk_of_a_run,
    kill_a_run,
    recipe_of,
    rows,
)

from tfmeta import keras_internals, training
from tfmeta.callbacks import Resume, checkpoint, finding
from tfmeta.callbacks.checkpoint import BrokenFileError, Progress
from tfmeta.callbacks.run_files import LEARNERS, LOCK, held, history_text
from tfmeta.recipes import network_makers, plan
from tfmeta.recipes.plan import Plan, prepare
from tfmeta.signals import Stopped
from tfmeta.training.details import check_same_data, data_facts
from tfmeta.training.recipe_run import recipe_run
from tfmeta.training.run_folder import check_free

TEMPORARY = ".best.0123456789abcdef0123456789abcdef.keras"


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(network_makers.NETWORKS, "linear", dropout_network)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all states, which was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(network_makers.NETWORKS, "linear", dropout_network)
        training.train(recipe_of(ALL_STATES), folder)
    return folder


# === Runs that are cut off ===


@contextlib.contextmanager
def signal_at(number: int, *positions: tuple[int, int]) -> Iterator[None]:
    """Sends this process a signal in the step of an epoch, or in the validation (step -1)."""
    waiting = list(positions)
    # A shell starts commands in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        on_train_batch_end, on_test_begin = Resume.on_train_batch_end, Resume.on_test_begin

        def send(position: tuple[int, int]) -> None:
            if position in waiting:
                waiting.remove(position)
                os.kill(os.getpid(), number)

        def in_step(self: Resume, batch: int, logs: Any = None) -> None:
            send((self.progress.epoch, self.progress.step + batch))
            on_train_batch_end(self, batch, logs)

        def in_validation(self: Resume, logs: Any = None) -> None:
            send((self.progress.epoch, -1))
            on_test_begin(self, logs)

        patch.setattr(Resume, "on_train_batch_end", in_step)
        patch.setattr(Resume, "on_test_begin", in_validation)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
    assert not waiting


def stop_a_run(folder: Path, number: int, position: tuple[int, int]) -> Progress:
    """Trains until a signal comes; returns what is saved."""
    with signal_at(number, position), pytest.raises(Stopped) as stop:
        training.train(recipe_of(ALL_STATES), folder)
    assert stop.value.number == number
    progress = checkpoint.read_progress(folder / "checkpoint.keras")
    assert progress is not None
    assert str(stop.value) == f"{folder} is saved up to {progress}. To go on, repeat the command."
    return progress


@pytest.mark.large
def test_a_run_that_was_stopped_and_killed_goes_on_bit_by_bit(whole: Path, tmp_path: Path) -> None:
    assert stop_a_run(tmp_path, signal.SIGTERM, (1, 1)).position == (1, 2)
    # The checkpoint within the epoch is the one before, and has all that is left of the run.
    check_kill(whole, tmp_path, "between the names of the checkpoints")
    assert len({row["loss"] for row in rows(whole)}) == 3
    assert finding.find(recipe_run(prepare(recipe_of(ALL_STATES))), tmp_path).epoch == 3


@pytest.mark.large
def test_a_run_that_was_stopped_often_goes_on_bit_by_bit(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stop_a_run(tmp_path, signal.SIGTERM, (0, 1)).position == (0, 2)
    # Validation comes to its end.
    assert stop_a_run(tmp_path, signal.SIGINT, (1, -1)).position == (2, 0)
    assert stop_a_run(tmp_path, signal.SIGTERM, (2, 0)).position == (2, 0)
    assert stop_a_run(tmp_path, signal.SIGTERM, (2, 1)).position == (2, 2)
    recipe = recipe_of(ALL_STATES)
    training.train(recipe, tmp_path)
    assert_same_run(tmp_path, whole)
    before = {name: (tmp_path / name).read_bytes() for name in LEARNERS}

    def no_fit(*args: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(keras.Model, "fit", no_fit)
    training.train(recipe, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in LEARNERS} == before


@pytest.mark.large
def test_the_best_learner_has_the_averages_and_the_checkpoint_the_weights(whole: Path) -> None:
    progress = checkpoint.read_progress(whole / "best.keras")
    assert progress is not None
    assert progress.averaged
    (epoch,) = {progress.epoch, progress.best_epoch}
    best = checkpoint.load_best(whole / "best.keras")
    validation = plan.settings(recipe_of(ALL_STATES), "validation")[0].episodes()
    measured = best.evaluate(validation, steps=3, verbose=0, return_dict=True)
    row = training.read_history(whole)[epoch - 1]
    assert measured["loss"] == pytest.approx(row["val_loss"], rel=1e-5)
    assert measured["accuracy"] == pytest.approx(row["val_accuracy"], rel=1e-5)
    raw = checkpoint.load(whole / "best.keras")
    assert not np.array_equal(raw.get_weights()[0], best.get_weights()[0])
    same_epoch = [name for name in LEARNERS[:2] if position(whole / name) == (epoch, 0)]
    for name in same_epoch:
        for a, b in zip(all_weights(whole / name), variables(raw), strict=True):
            np.testing.assert_array_equal(a, b)


def variables(model: Any) -> list[np.ndarray]:
    found = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(v) for v in found if not keras_internals.is_seed_state(v)]


def position(path: Path) -> tuple[int, int]:
    progress = checkpoint.read_progress(path)
    assert progress is not None
    return progress.position


@pytest.mark.large
@pytest.mark.parametrize("point", [p for p in POINTS if not p.startswith("between")])
def test_a_run_that_was_killed_anywhere_goes_on_bit_by_bit(
    whole: Path, tmp_path: Path, point: str
) -> None:
    check_kill(whole, tmp_path, point)


@pytest.mark.large
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file.")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_full_disk_costs_the_epoch_in_progress(whole: Path, tmp_path: Path, share: float) -> None:
    size = (whole / "checkpoint.keras").stat().st_size
    fill_the_disk_of_a_run(tmp_path, int(share * size))
    progress = checkpoint.read_progress(tmp_path / "checkpoint.keras")
    assert progress is not None
    assert progress.epoch == 1
    training.train(recipe_of(ALL_STATES), tmp_path)
    assert_same_run(tmp_path, whole)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in whole.iterdir()}


def check_kill(whole: Path, folder: Path, point: str) -> None:
    kill_a_run(folder, point)
    (folder / ".notes.txt").write_text("not ours")
    left = checkpoint.read_progress(
        folder / ("previous.keras" if "names" in point else "checkpoint.keras")
    )
    assert left is not None
    assert left.epoch == POINTS[point]
    with warnings.catch_warnings():
        warnings.simplefilter("error" if "names" not in point else "ignore", RuntimeWarning)
        training.train(recipe_of(ALL_STATES), folder)
    assert_same_run(folder, whole)
    names = {path.name for path in folder.iterdir()} - {LOCK, ".notes.txt"}
    assert names == {path.name for path in whole.iterdir()} - {LOCK}


@pytest.mark.large
def test_kills_at_any_time_lose_at_most_the_epoch_in_progress(tmp_path: Path) -> None:
    recipe = recipe_of(epochs=12)
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe.to_dict()))
    command = [sys.executable, "-m", "tfmeta", "train", str(tmp_path / "recipe.yaml"), "--output"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, str(whole)], check=True, capture_output=True, timeout=300)
    delays = random.Random(0)
    for _ in range(10):
        with subprocess.Popen(
            [*command, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as child:
            # Once it trains, anything may be going on.
            while child.poll() is None and not (killed / "run.json").exists():
                time.sleep(0.05)
            time.sleep(delays.uniform(0, 12))
            child.kill()
            _, error = child.communicate()
        assert b"Traceback" not in error
    subprocess.run([*command, str(killed)], check=True, capture_output=True, timeout=300)
    assert_same_run(killed, whole)
    assert [p.name for p in killed.iterdir() if p.name.startswith(".") and p.name != LOCK] == []


def test_temporaries_of_a_run_are_swept_and_others_stay(tmp_path: Path) -> None:
    others = [".best.0.keras", ".mine.0123456789abcdef0123456789abcdef.keras", "best.keras.old"]
    for name in (TEMPORARY, *others):
        (tmp_path / name).write_text("half")
    with held(tmp_path):
        pass
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != LOCK) == sorted(others)


# === Files that are lost or broken ===


@pytest.fixture(scope="module")
def setup() -> Plan:
    return prepare(recipe_of())


@pytest.fixture(scope="module")
def cut_off(setup: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a run after the third of four epochs, the second of which was the best."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    learner, progress = setup.learner, finding.find(recipe_run(setup), folder)
    folder.mkdir()
    learner.fit(setup.train.episodes(), steps_per_epoch=1, verbose=0)
    rows = [
        {"epoch": i + 1, "seconds": 1.5, "loss": 1 / 3, "val_loss": v}
        for i, v in enumerate((3, 1, 2))
    ]
    for epoch in (1, 2, 3):
        # Weights that tell the epoch.
        learner.set_weights([np.full_like(w, epoch) for w in learner.get_weights()])
        progress = dataclasses.replace(
            progress, epoch=epoch, history=rows[:epoch], best_epoch=min(epoch, 2)
        )
        for name, at in (("previous.keras", 2), ("best.keras", 2), ("checkpoint.keras", 3)):
            if epoch == at:
                with checkpoint.saved(learner, folder / name, progress):
                    pass
    (folder / "history.csv").write_text(history_text(rows))
    return folder


@pytest.fixture
def folder(cut_off: Path, tmp_path: Path) -> Path:
    shutil.copytree(cut_off, tmp_path / "run")
    return tmp_path / "run"


def resumed(setup: Plan, folder: Path) -> tuple[Progress, list[str]]:
    """Resumes; returns the progress and the warnings. The learner must be of its epoch."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        progress = finding.find(recipe_run(setup), folder)
    said = [str(w.message) for w in caught if w.category is RuntimeWarning]
    if progress.epoch:
        setup.learner.optimizer.build(setup.learner.trainable_variables)
        checkpoint.load_into(setup.learner, folder / "checkpoint.keras")
        assert setup.learner.get_weights()[0].flat[0] == progress.epoch
        assert position(folder / "checkpoint.keras") == progress.position
        assert training.read_history(folder) == progress.history
        assert position(folder / "best.keras")[0] == progress.best_epoch
        best = training.load_learner(folder)
        assert best.get_weights()[0].flat[0] == progress.best_epoch
    return progress, said


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Flips a bit of a weight, which Keras may not notice."""
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(3).tobytes() * 8)] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    """Puts the file of a run of another seed there."""
    progress = checkpoint.read_progress(path)
    assert progress is not None
    replace_progress(path, dataclasses.replace(progress, recipe=recipe_of(seed=4).to_dict()))


def replace_progress(path: Path, progress: Progress | None) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    del members[checkpoint.MEMBER]
    if progress is not None:
        members[checkpoint.MEMBER] = json.dumps(dataclasses.asdict(progress)).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "checkpoint.keras was truncated or altered"),
    (flip, "checkpoint.keras was altered: the check sum of its model.weights.h5 is wrong"),
    (empty, "checkpoint.keras was truncated or altered"),
    (foreign, "checkpoint.keras is of another run: its recipe is another one"),
    (Path.unlink, "checkpoint.keras is missing"),
]


def test_an_intact_run_resumes_without_a_word(setup: Plan, folder: Path) -> None:
    before = {p: p.read_bytes() for p in folder.iterdir()}
    progress, said = resumed(setup, folder)
    assert (progress.position, said) == ((3, 0), [])
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_the_checkpoint_before_is_used_if_the_newest_is_lost(
    setup: Plan, folder: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(folder / "checkpoint.keras")
    broken = (folder / "checkpoint.keras").exists()
    previous = (folder / "previous.keras").read_bytes()
    progress, said = resumed(setup, folder)
    assert progress.position == (2, 0)
    assert len(said) == 1
    assert f"{folder}/{reason}" in said[0]
    assert "Resuming from previous.keras, after epoch 2: what was trained since then" in said[0]
    assert (folder / "checkpoint.keras").read_bytes() == previous
    # A checkpoint that cannot be read never takes the place of one that can.
    assert not (folder / "previous.keras").exists()
    assert (folder / finding.BROKEN).exists() == broken
    assert resumed(setup, folder) == (progress, [])


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_the_best_learner_is_used_if_both_checkpoints_are_lost(
    setup: Plan, folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder / "checkpoint.keras")
    damage(folder / "previous.keras")
    progress, said = resumed(setup, folder)
    assert progress.position == (2, 0)
    assert any("Resuming from best.keras, after epoch 2" in text for text in said)
    assert (folder / "best.keras").read_bytes() == (folder / "checkpoint.keras").read_bytes()


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_a_run_of_which_nothing_is_left_is_no_new_one(
    setup: Plan, folder: Path, damage: Callable[[Path], None]
) -> None:
    for name in LEARNERS:
        damage(folder / name)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match="nothing is left to resume from") as error:
        finding.find(recipe_run(setup), folder)
    for name in LEARNERS:
        assert f"{folder / name} " in str(error.value)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_a_broken_checkpoint_is_no_reason_to_use_another_one_if_it_is_the_newest(
    setup: Plan, folder: Path
) -> None:
    truncate(folder / "previous.keras")
    progress, said = resumed(setup, folder)
    assert progress.position == (3, 0)
    assert [f"{folder}/previous.keras was truncated" in text for text in said] == [True]


def test_a_file_that_cannot_be_read_is_not_taken_for_broken(
    setup: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="Input/output error"):
        finding.find(recipe_run(setup), folder)


@pytest.mark.parametrize("count", [60, pytest.param(4000, marks=pytest.mark.large)])
def test_no_wrong_bit_of_a_checkpoint_is_overlooked(folder: Path, count: int) -> None:
    """Each file is refused, or means the same."""
    path = folder / "checkpoint.keras"
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    draws = random.Random(0)
    refused = 0
    for _ in range(count):
        altered = bytearray(content)
        altered[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        path.write_bytes(altered)
        try:
            checkpoint.check_whole(path)
        except BrokenFileError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        with zipfile.ZipFile(path) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == members
    assert refused > count / 2


# === The history ===


def cut(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


def of_another_run(path: Path) -> None:
    path.write_text(path.read_text().replace("0.333", "0.444"))


@pytest.mark.parametrize("damage", [Path.unlink, empty, cut, of_another_run, truncate])
def test_a_history_that_was_lost_is_written_anew(
    setup: Plan, folder: Path, damage: Callable[[Path], None]
) -> None:
    before = (folder / "history.csv").read_text()
    damage(folder / "history.csv")
    _, said = resumed(setup, folder)
    assert said == [
        f"{folder}/history.csv is not that of checkpoint.keras, which has 3 rows: it is written "
        "anew."
    ]
    assert (folder / "history.csv").read_text() == before


@pytest.mark.parametrize("rows", [2, 4])
def test_a_history_that_a_kill_left_behind_or_ahead_is_written_anew_without_a_word(
    setup: Plan, folder: Path, rows: int
) -> None:
    lines = [*(folder / "history.csv").read_text().splitlines(), "4,1.5,0.25,1.0"]
    (folder / "history.csv").write_text("\n".join(lines[: rows + 1]) + "\n")
    assert resumed(setup, folder)[1] == []


# === The best learner ===


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_the_best_learner_is_written_anew_from_the_checkpoint_of_its_epoch(
    setup: Plan, folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder / "best.keras")
    progress, said = resumed(setup, folder)
    assert progress.best_epoch == 2
    assert all("best.keras was truncated" in text for text in said)


def test_the_best_learner_that_is_left_is_used_if_the_best_is_lost(
    setup: Plan, folder: Path
) -> None:
    (folder / "best.keras").unlink()
    (folder / "previous.keras").unlink()
    progress, said = resumed(setup, folder)
    assert progress.best_epoch == 3
    assert said == [
        f"{folder}/best.keras of epoch 2 is lost: the best learner that is left is that of epoch "
        "3, in checkpoint.keras."
    ]


def test_a_broken_best_learner_is_told_with_its_path(folder: Path) -> None:
    truncate(folder / "best.keras")
    with pytest.raises(ValueError, match=r"best\.keras was truncated .* Repeat `tfmeta train`"):
        training.load_learner(folder)


# === The recipe and the data ===


def test_a_recipe_that_was_lost_is_known_from_the_checkpoint(folder: Path) -> None:
    assert not (folder / "recipe.yaml").exists()
    check_free(folder, recipe_of())
    with pytest.raises(ValueError, match="neither an empty folder nor a run folder"):
        check_free(folder, recipe_of(seed=4))


def test_other_data_are_refused(setup: Plan, folder: Path) -> None:
    path = folder / "checkpoint.keras"
    progress = checkpoint.read_progress(path)
    assert progress is not None
    assert progress.data is not None
    progress.data["train"]["source"]["name"] = "linear"
    replace_progress(path, progress)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"changed since .* train split, source was .*linear"):
        finding.find(recipe_run(setup), folder)
    assert path.read_bytes() == before


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for k in range(10):
        (tmp_path / "photos" / f"class{k}").mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"class{k}" / f"{i}.png")
    return tmp_path / "photos"


def facts_of(photos: Path) -> dict[str, Any]:
    image_format = {"height": 4, "width": 4, "channels": 1}
    data = {"name": str(photos), "image_format": image_format}
    recipe = recipe_of({**ALL_STATES, "data": data}, optimizer=ADAM)
    splits = ("train", "validation", "test")
    train, validation, test = (plan.settings(recipe, split)[0] for split in splits)
    return data_facts(Plan(recipe, None, train, validation, (test,)))  # type: ignore[arg-type]


def test_a_change_of_a_folder_of_images_is_noticed(photos: Path, tmp_path: Path) -> None:
    facts = facts_of(photos)
    image = photos / "class3" / "1.png"
    changes = [
        (lambda: shutil.copy(image, photos / "class3" / "9.png"), "'class3' had 8 examples, has 9"),
        (lambda: (photos / "class3" / "9.png").unlink(), None),
        (lambda: image.rename(image.with_name("70.png")), "the files or the version changed"),
        (lambda: image.with_name("70.png").rename(image), None),
        (
            lambda: image.write_bytes(image.read_bytes() + b"more"),
            "the files or the version changed",
        ),
    ]
    for change, message in changes:
        change()
        if message is None:
            check_same_data(tmp_path, facts, facts_of(photos))
            continue
        with pytest.raises(ValueError, match=message):
            check_same_data(tmp_path, facts, facts_of(photos))
    shutil.copytree(photos / "class3", photos / "class99")
    with pytest.raises(ValueError, match=r"the class '.*' .*is (gone|new)"):
        check_same_data(tmp_path, facts, facts_of(photos))


def test_a_folder_of_images_that_moved_is_the_same(photos: Path, tmp_path: Path) -> None:
    facts = facts_of(photos)
    (tmp_path / "elsewhere").mkdir()
    photos.rename(tmp_path / "elsewhere" / "photos")
    check_same_data(tmp_path, facts, facts_of(tmp_path / "elsewhere" / "photos"))


# === Runs of tfmeta 0.1 ===


@pytest.mark.parametrize("accumulates", [False, True])
def test_a_run_of_0_1_0_resumes(setup: Plan, tmp_path: Path, accumulates: bool) -> None:
    optimizer = {**ADAM, "config": {"gradient_accumulation_steps": 2}} if accumulates else ADAM
    recipe = recipe_of(optimizer=optimizer)
    old = prepare(recipe)
    old.learner.fit(old.train.episodes(), steps_per_epoch=3, epochs=2, verbose=0)
    tmp_path = tmp_path / "run"
    tmp_path.mkdir()
    for name in ("checkpoint.keras", "best.keras"):
        old.learner.save(tmp_path / name)
    text = "epoch,seconds,loss,val_loss\r\n1,1.5,1.0,2.0\r\n2,1.5,1.0,1.0\r\n3,1.5,1.0,1.0\r\n"
    (tmp_path / "history.csv").write_bytes(text.encode())
    details = {"example_shape": [1], "image_format": None, "test_classes": None}
    (tmp_path / "run.json").write_text(json.dumps(details))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        progress = finding.find(recipe_run(old), tmp_path)
    assert (progress.position, progress.best_epoch) == ((2, 0), 2)
    assert [row["val_loss"] for row in progress.history] == [2.0, 1.0]
    (tmp_path / "history.csv").unlink()
    with pytest.raises(ValueError, match=r"after epoch 2, but history\.csv has 0 rows"):
        finding.find(recipe_run(old), tmp_path)
