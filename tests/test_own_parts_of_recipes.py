"""A recipe takes one's own network, folders, callbacks and precision."""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from PIL import Image

import tfmeta
from tfmeta import preset_files, training
from tfmeta.recipes import Recipe, plan

FORMAT = {"height": 8, "width": 8, "channels": 1}
DIGITS: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "digits"},
    "episodes": {"n_way": 2, "n_shot": 1, "n_query": 3, "meta_batch_size": 2},
    "network": {"name": "linear"},
    "learner": {"name": "maml", "batch_norm": "support", "inner_learning_rate": 0.1},
    "training": {"epochs": 1, "steps_per_epoch": 2, "optimizer": "sgd"},
    "validation": {"n_episodes": 2},
    "evaluation": {"n_episodes": 4},
    "protocol": "a tiny one",
}
WAVES: dict[str, Any] = {
    **DIGITS,
    "data": {"name": "sinusoid"},
    "episodes": {"n_shot": 3, "n_query": 3, "meta_batch_size": 2},
    "network": {"name": "mlp", "hidden_units": [4]},
    "learner": {"name": "maml", "inner_learning_rate": 0.01},
}


def with_training(recipe: dict[str, Any], **options: Any) -> Recipe:
    return Recipe.from_dict({**recipe, "training": {**recipe["training"], **options}})


# === Networks ===

MODULE = """
import keras
from pathlib import Path
Path(__file__).with_name("imported").touch()

def small(n_outputs, input_shape, width=3):
    layers = [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(width)]
    return keras.Sequential(layers + ([] if n_outputs is None else [keras.layers.Dense(n_outputs)]))

def broken(n_outputs, input_shape):
    return 1 / 0

def three(n_outputs, input_shape):
    layers = [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential(layers)

def none(n_outputs, input_shape):
    return None

here = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_networks_of_tests.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_networks_of_tests", None)


def own(name: str, **options: Any) -> Recipe:
    return Recipe.from_dict(
        {**DIGITS, "network": {"name": f"my_networks_of_tests:{name}", **options}}
    )


def test_a_function_makes_the_network(module: Path) -> None:
    path = list(sys.path)
    recipe = own("small", width=5)
    assert not (module / "imported").exists()
    assert recipe.to_dict()["network"] == {"name": "my_networks_of_tests:small", "width": 5}
    learner = plan.make_learner(recipe, (8, 8, 1))
    assert [w.shape for w in learner.network.weights] == [(64, 5), (5,), (5, 2), (2,)]
    again = plan.make_learner(recipe, (8, 8, 1))
    np.testing.assert_array_equal(learner.get_weights()[0], again.get_weights()[0])
    assert sys.path == path
    content = {**recipe.to_dict(), "learner": {"name": "prototypical_network"}}
    learner = plan.make_learner(Recipe.from_dict(content), (8, 8, 1))
    assert learner.encoder.output_shape == (None, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "network: my_networks_of_tests:broken: ZeroDivisionError"),
        ("three", "network: .*:three must have 2 outputs.*; it has 3"),
        ("none", "network: .*:none must give a keras.Model; got a NoneType"),
        ("here", "network: .*:here must be a function; it is a int"),
        ("nothing", "network: .*:nothing cannot be imported"),
    ],
)
def test_a_function_that_makes_no_network_is_told(module: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan.make_learner(own(name), (8, 8, 1))


def test_a_module_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.from_dict({**DIGITS, "network": {"name": "no_such_module:small"}})
    with pytest.raises(ValueError, match=f"cannot be imported from {tmp_path}.*No module named"):
        plan.make_learner(recipe, (8, 8, 1))


def test_code_of_a_recipe_runs_in_training_only(module: Path) -> None:
    """A preset whose recipe names a function is read, loaded and tested without it."""
    content = own("small").to_dict()
    learner = plan.make_learner(Recipe.from_dict(DIGITS), (8, 8, 1))
    preset_files.save(learner, module / "preset", recipe=content)
    loaded = tfmeta.from_preset(module / "preset")
    recipe = Recipe.from_dict(preset_files.read(module / "preset").recipe)
    training.measure(loaded, plan.settings(recipe, "test"), n_episodes=2)
    assert not (module / "imported").exists()


def saved_network(file: Path, n_outputs: int = 2) -> Path:
    keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(n_outputs)]
    ).save(file)
    return file


def test_a_saved_network_keeps_its_weights_and_a_run_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved_network(tmp_path / "mine.keras")
    weights = keras.models.load_model(file).get_weights()
    monkeypatch.chdir(tmp_path)
    given = {**DIGITS, "network": {"name": "./mine.keras"}}
    recipe = Recipe.from_dict(given)
    network = recipe.to_dict()["network"]
    assert network["name"] == str(file)
    np.testing.assert_array_equal(
        plan.make_learner(recipe, (8, 8, 1)).network.get_weights()[0], weights[0]
    )
    saved_network(file)
    assert Recipe.from_dict(given) != recipe
    with pytest.raises(ValueError, match=r"mine\.keras is another file than the recipe's"):
        plan.make_learner(recipe, (8, 8, 1))
    file.unlink()
    # What only tests needs no file.
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match=r"network: there is no file .*mine\.keras"):
        plan.make_learner(Recipe.from_dict(given), (8, 8, 1))


def test_a_saved_network_that_does_not_fit_is_told(tmp_path: Path) -> None:
    recipe = Recipe.from_dict(
        {**DIGITS, "network": {"name": str(saved_network(tmp_path / "a.keras", 3))}}
    )
    with pytest.raises(ValueError, match=r"must have 2 outputs.*it has 3"):
        plan.make_learner(recipe, (8, 8, 1))
    with pytest.raises(ValueError, match=r"takes examples of shape \(8, 8, 1\), but the data have"):
        plan.make_learner(recipe, (9, 9, 1))
    (tmp_path / "a.keras").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"a\.keras does not load"):
        plan.make_learner(
            Recipe.from_dict({**DIGITS, "network": {"name": str(tmp_path / "a.keras")}}), (8, 8, 1)
        )


# === Folders ===


def draw(folder: Path, classes: str, n: int = 4) -> Path:
    rng = np.random.default_rng(len(classes))
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_three_folders_are_the_three_splits_from_wherever_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, classes in (("train", "abc"), ("validation", "de"), ("test", "fg")):
        draw(tmp_path / split, classes)
    monkeypatch.chdir(tmp_path)
    data = {split: split for split in ("train", "validation", "test")}
    content = {**DIGITS, "data": {**data, "image_format": FORMAT}}
    recipe = Recipe.from_dict(content)
    monkeypatch.chdir("/")
    prepared = plan.prepare(recipe)
    settings = (prepared.train, prepared.validation, prepared.tests[0])
    assert [s.source.class_names for s in settings] == [[*"abc"], [*"de"], [*"fg"]]
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    draw(tmp_path / "test", "b")
    with pytest.raises(ValueError, match="data: the class 'b' is in train and in test"):
        plan.prepare(recipe)


def test_a_folder_of_unseen_classes_is_tested_as_a_whole(tmp_path: Path) -> None:
    draw(tmp_path, "abcdef")
    content = {**DIGITS, "data": {"name": str(tmp_path), "image_format": FORMAT, "split": "all"}}
    recipe = Recipe.from_dict(content)
    (setting,) = plan.settings(recipe, "test")
    assert setting.source.class_names == [*"abcdef"]
    with pytest.raises(ValueError, match="data: with split: all there are no classes to train on"):
        plan.prepare(recipe)


def test_a_relative_folder_is_remembered_absolutely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.from_dict({**DIGITS, "data": {"name": "photos", "image_format": FORMAT}})
    monkeypatch.chdir("/")
    assert recipe.to_dict()["data"]["name"] == str(tmp_path / "photos")
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_an_error_in_the_data_names_the_recipe_s_file(tmp_path: Path) -> None:
    content = {**DIGITS, "data": {"name": str(tmp_path / "shpaes"), "image_format": FORMAT}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"mine\.yaml: data: No such folder: .*shpaes"):
        plan.prepare(Recipe.load(tmp_path / "mine.yaml").with_training(epochs=3))


# === What would fail after training is told before ===


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {"n_episodes": 4, "also": [{"n_way": 3}]}}, "tested on 3 classes"),
        ({"validation": {"n_episodes": 2, "n_way": 3}}, "tested on 3 classes"),
        (
            {
                "learner": {"name": "maml_plus_plus", "inner_steps": 2},
                "evaluation": {"n_episodes": 4, "inner_steps": 3},
            },
            "after up to 3 inner steps, but the inner rule of this learner knows 2",
        ),
        pytest.param(
            {
                "data": {"name": "glyphs"},
                "episodes": {"n_way": 50, "n_shot": 5, "n_query": 10, "meta_batch_size": 1_000},
            },
            "750,000 examples of shape .* GiB",
            marks=pytest.mark.large,
        ),
    ],
)
def test_what_a_test_cannot_do_is_told_before_training(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfmeta.recipes.sizes.MOST_BYTES", 2**30)
    # Digits have two classes for validation and for the test: let all be there.
    load = plan.load_data
    if changes.get("data") is None:
        monkeypatch.setattr(plan, "load_data", lambda recipe, split, folder: load(recipe, "all"))
        monkeypatch.setattr(plan, "_check_disjoint", lambda settings: None)
    with pytest.raises(ValueError, match=message):
        plan.prepare(Recipe.from_dict({**DIGITS, **changes}))


# === Callbacks ===

PLATEAU = {
    "class_name": "ReduceLROnPlateau",
    "config": {"monitor": "loss", "factor": 0.5, "patience": 1, "min_delta": 100.0},
}
STOPPING = {
    "class_name": "EarlyStopping",
    "config": {"monitor": "loss", "patience": 2, "min_delta": 100.0},
}


class Killed(Exception):
    pass


def weights_of(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / training.CHECKPOINT).get_weights()


@pytest.mark.large
@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_callbacks_go_on_in_a_resumed_run_as_if_it_had_not_been_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    recipe = with_training(WAVES, epochs=6, callbacks=[PLATEAU, STOPPING, "TerminateOnNaN"])
    training.train(recipe, tmp_path / "whole")
    # The rate is halved after the 2nd and the 3rd epoch, and the run stops after the 3rd.
    assert len(training.read_history(tmp_path / "whole")) == 3

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch + 1 == killed_after:
                raise Killed

    monkeypatch.setattr(keras.callbacks, "TensorBoard", lambda *_, **__: Kill())
    with pytest.raises(Killed):
        training.train(recipe, tmp_path / "run")
    monkeypatch.undo()
    training.train(recipe, tmp_path / "run")
    for run in ("whole", "run"):
        learner = keras.models.load_model(tmp_path / run / training.CHECKPOINT)
        assert float(learner.optimizer.learning_rate) == pytest.approx(0.0025)
    for a, b in zip(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([{"class_name": "EarlyStopping", "config": {"patients": 3}}], "EarlyStopping: .*patients"),
        ([{"class_name": "EarlyStopping", "config": {"monitor": "acc"}}], "monitor must be one of"),
        (
            [{"class_name": "EarlyStopping", "config": {"restore_best_weights": True}}],
            "leave restore_best_weights out",
        ),
        ([{"class_name": "TerminateOnNaN", "when": 3}], "class_name and config; got .'when'"),
        (["ModelCheckpoint"], "callbacks must be a list of EarlyStopping, .*'ModelCheckpoint'"),
    ],
)
def test_a_callback_that_cannot_do_right_is_refused(callbacks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"training: .*{message}"):
        plan.make_callbacks(with_training(WAVES, callbacks=callbacks))


def test_a_schedule_is_not_lowered_by_a_callback() -> None:
    rate = {
        "module": "keras.optimizers.schedules",
        "class_name": "CosineDecay",
        "config": {"initial_learning_rate": 0.1, "decay_steps": 10},
    }
    optimizer = {"class_name": "SGD", "config": {"learning_rate": rate}}
    with pytest.raises(ValueError, match="ReduceLROnPlateau needs an optimizer whose learning"):
        plan.prepare(with_training(WAVES, callbacks=[PLATEAU], optimizer=optimizer))


# === Precision ===


@pytest.mark.large
def test_the_network_computes_in_the_precision_of_the_recipe_and_a_run_lists_its_classes(
    tmp_path: Path,
) -> None:
    recipe = with_training(DIGITS, dtype_policy="mixed_bfloat16")
    report = training.train(recipe, tmp_path / "run")
    assert np.isfinite(report.own.mean)
    learner = training.load_learner(tmp_path / "run")
    dense = [layer for layer in learner.network.layers if isinstance(layer, keras.layers.Dense)]
    assert {layer.compute_dtype for layer in dense} == {"bfloat16"}
    assert {w.dtype for w in learner.network.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    details = json.loads((tmp_path / "run" / training.DETAILS).read_text())
    classes = details["classes"]
    assert list(classes) == ["train", "validation", "test"]
    assert sorted(name for names in classes.values() for name in names) == list("0123456789")
    assert {split: len(names) for split, names in classes.items()} == details["data"]


def test_a_saved_network_keeps_its_precision(tmp_path: Path) -> None:
    network = {"name": str(saved_network(tmp_path / "a.keras"))}
    recipe = with_training({**DIGITS, "network": network}, dtype_policy="mixed_bfloat16")
    with pytest.raises(ValueError, match="training: dtype_policy mixed_bfloat16 is for a network"):
        plan.make_learner(recipe, (8, 8, 1))
