"""A recipe changes images at random, and draws examples from groups, where it says so."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

from tfmeta import training
from tfmeta.cli import results
from tfmeta.data import ClassDataset
from tfmeta.recipes import Recipe, document_texts, plan
from tfmeta.recipes.augmentation import LAYERS
from tfmeta.recipes.augmentation_makers import make_augmentation
from tfmeta.recipes.setting import Setting
from tfmeta.report.texts import ways_and_shots

DIGITS: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "digits"},
    "episodes": {"n_way": 2, "n_shot": 2, "n_query": 3, "meta_batch_size": 2},
    "network": {"name": "mlp", "hidden_units": [6]},
    "learner": {"name": "prototypical_network"},
    "training": {
        "epochs": 2,
        "steps_per_epoch": 2,
        "optimizer": {"class_name": "SGD", "config": {"learning_rate": 0.1}},
        "seed": 3,
    },
    "validation": {"n_episodes": 2},
    "evaluation": {"n_episodes": 2},
    "protocol": "a tiny one",
}
EMOJI: dict[str, Any] = {**DIGITS, "data": {"name": "emoji"}}
MOVE = {
    "class_name": "RandomTranslation",
    "config": {"height_factor": [-0.5, 0.5], "width_factor": 0.5, "fill_mode": "constant"},
}
FLIP = "RandomFlip"


def recipe_of(content: dict[str, Any], **sections: dict[str, Any]) -> Recipe:
    """A recipe with further options in its sections."""
    content = copy.deepcopy(content)
    for section, options in sections.items():
        content[section].update(options)
    return Recipe.from_dict(content)


# === Augmentation ===


@pytest.mark.parametrize(
    "augment",
    [
        None,
        "RandomFlip",
        {"class_name": "RandomFlip"},
        MOVE,
        ["RandomFlip", MOVE],
        {"support": "RandomFlip"},
        {"query": [MOVE]},
        {"support": ["RandomFlip", MOVE], "query": MOVE},
    ],
)
def test_a_layer_or_several_for_one_part_or_both_are_kept_as_given(
    augment: Any, tmp_path: Path
) -> None:
    recipe = recipe_of(DIGITS, episodes={"augment": augment}, evaluation={"augment": augment})
    assert recipe.to_dict()["episodes"]["augment"] == augment
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
    assert Recipe.load(tmp_path) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


DENSE = {"class_name": "Dense", "config": {"units": 3}}
CODE = {"module": "os", "class_name": "system", "config": {"command": "true"}}


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (3, "must be a Keras layer, such as RandomFlip or .*; got 3"),
        (True, "must be a Keras layer, .*; got True"),
        ([], "must be a Keras layer, .*; got an empty list"),
        ([[MOVE]], "must be a Keras layer, .*; got "),
        ({}, "must be a Keras layer, .*; got {}"),
        ({"support": None}, "must be a Keras layer, .*; got None"),
        ({"queries": MOVE}, "must be a Keras layer, .* query: .*; got {'queries"),
        ({"support": MOVE, "config": {}}, "must be a Keras layer, .*; got "),
        ("RandomFlipp", "unknown layer 'RandomFlipp'; did you mean 'RandomFlip'"),
        ({"class_name": 3}, "unknown layer 3; expected one of"),
        (DENSE, "unknown layer 'Dense'; expected one of"),
        ({"class_name": "Lambda", "config": {"function": "print"}}, "unknown layer 'Lambda'; "),
        ("AugMix", "unknown layer 'AugMix'; "),
        ({"query": ["RandomFlip", "Dense"]}, "query: unknown layer 'Dense'; "),
        ("MixUp", "unknown layer 'MixUp'; "),
        ("my_module:layer", "unknown layer 'my_module:layer'; "),
        (CODE, "unknown layer 'system'; "),
        ({**MOVE, "module": "os"}, "RandomTranslation: .* class_name and config; got ..module"),
        ({"class_name": "RandomFlip", "config": [1]}, r"RandomFlip: config .* mapping; got \[1"),
        (
            {"class_name": "RandomFlip", "config": {"dtype": CODE}},
            "RandomFlip: dtype must be a number, .* or a list of these; got {'class_name'",
        ),
        (
            {"class_name": "RandomFlip", "config": {"activity_regularizer": [CODE]}},
            "RandomFlip: activity_regularizer must be a number",
        ),
        ({"class_name": "RandomFlip", "config": {"seed": float("nan")}}, "must .*: not finite"),
        (["RandomFlip"] * 1001, "must be a Keras layer.*: too many values"),
    ],
)
@pytest.mark.parametrize("section", ["episodes", "validation", "evaluation"])
def test_what_is_no_layer_that_a_run_can_repeat_is_refused(
    section: str, augment: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{section}: augment:? {message}") as error:
        recipe_of(DIGITS, **{section: {"augment": augment}})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 900


def test_vectors_and_regression_tasks_have_no_images_to_change() -> None:
    content = {**DIGITS, "data": {"name": "sinusoid"}, "episodes": {"augment": "RandomFlip"}}
    with pytest.raises(ValueError, match="episodes: unknown key 'augment'"):
        Recipe.from_dict(content)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"class_name": "RandomFlip", "config": {"mod": "x"}}, "augment: RandomFlip: .*mod"),
        ("RandomRotation", "augment: RandomRotation: .*factor"),
        (
            {"class_name": "RandomContrast", "config": {"factor": 0.3}},
            r".* has value_range=\(0, 255\): make it with value_range=\(0, 1\)",
        ),
        (
            ["RandomFlip", {"class_name": "Resizing", "config": {"height": 4, "width": 4}}],
            r"augment must keep the shape of the images, \(8, 8, 1\)",
        ),
    ],
)
def test_what_only_keras_can_refuse_is_refused_before_training(augment: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^episodes: {message}") as error:
        plan.prepare(recipe_of(DIGITS, episodes={"augment": augment}))
    assert "\n" not in str(error.value)


def settings_of(recipe: Recipe) -> list[Setting]:
    """The settings of meta-training, of validation and of all tests."""
    return [
        setting
        for split in ("train", "validation", "test")
        for setting in plan.settings(recipe, split)
    ]


def first(setting: Setting) -> dict[str, np.ndarray]:
    inputs, _ = next(iter(setting.episodes()))
    return {name: value.numpy() for name, value in inputs.items()}


def changed_parts(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    """The parts of an episode whose images are changed; the labels are the same."""
    np.testing.assert_array_equal(before["support_y"], after["support_y"])
    return {
        p for p in ("support", "query") if not np.array_equal(before[f"{p}_x"], after[f"{p}_x"])
    }


BOTH = {"support", "query"}


def test_images_are_changed_in_meta_training_and_elsewhere_only_if_that_section_says_so() -> None:
    plain = recipe_of(DIGITS, evaluation={"also": [{}]})
    recipe = recipe_of(
        DIGITS,
        episodes={"augment": FLIP},
        validation={"augment": {"query": FLIP}},
        evaluation={"also": [{"augment": {"support": [FLIP]}}]},
    )
    pairs = zip(settings_of(plain), settings_of(recipe), strict=True)
    assert [changed_parts(first(before), first(after)) for before, after in pairs] == [
        BOTH,
        {"query"},
        set(),
        {"support"},
    ]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        # Of meta-training, validation, the test, and a further test.
        ({"episodes": {"augment": MOVE}}, [MOVE, None, None, None]),
        ({"validation": {"augment": MOVE}}, [None, MOVE, None, None]),
        ({"evaluation": {"augment": MOVE}}, [None, None, MOVE, MOVE]),
        (
            {"episodes": {"augment": FLIP}, "evaluation": {"augment": MOVE}},
            [FLIP, None, MOVE, MOVE],
        ),
        (
            {"evaluation": {"augment": MOVE, "also": [{"augment": None}]}},
            [None, None, MOVE, None],
        ),
        (
            {"episodes": {"augment": MOVE}, "evaluation": {"also": [{"augment": [FLIP]}]}},
            [MOVE, None, None, [FLIP]],
        ),
    ],
)
def test_augmentation_is_inherited_by_further_tests_alone(
    sections: dict[str, Any], expected: list[Any]
) -> None:
    also = {"evaluation": {"also": [{}], **sections.get("evaluation", {})}}
    options = recipe_of(DIGITS, **sections | also).all_episode_options()
    assert [*options] == ["episodes", "validation", "evaluation", "evaluation: also[0]"]
    assert [each.get("augment") for each in options.values()] == expected


def test_an_evaluation_without_groups_and_augmentation_is_recorded_as_before() -> None:
    (setting,) = plan.settings(recipe_of(DIGITS, episodes={"augment": MOVE}), "test")
    assert setting.options == DIGITS["episodes"]


def test_making_layers_leaves_the_global_random_state_as_it_was() -> None:
    random.seed(7)
    expected = random.random()
    random.seed(7)
    layer = make_augmentation({"support": ["RandomFlip", "RandomGrayscale"]})["support"]
    assert isinstance(layer, keras.Sequential)
    assert random.random() == expected


# The options without which a layer is not made, or does too little to show.
CONFIGS: dict[str, dict[str, Any]] = {
    "GaussianNoise": {"stddev": 0.2},
    "RandomBrightness": {"factor": 0.5},
    "RandomColorDegeneration": {"factor": 1.0},
    "RandomColorJitter": {"brightness_factor": 0.5},
    "RandomContrast": {"factor": 0.5},
    "RandomCrop": {"height": 12, "width": 12},
    "RandomHue": {"factor": 0.5},
    "RandomPosterization": {"factor": 3},
    "RandomRotation": {"factor": 0.2},
    "RandomSaturation": {"factor": 1.0},
    "RandomSharpness": {"factor": 1.0},
    "RandomShear": {"x_factor": 0.5},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.3},
    "RandomZoom": {"height_factor": 0.5},
    "ReLU": {"max_value": 1},
    "Resizing": {"height": 12, "width": 12},
    "Solarization": {"threshold_factor": 0.5},
}
# They change nothing, or the size: others need them.
HELPERS = ("RandomCrop", "ReLU", "Resizing", "ZeroPadding2D")


@pytest.mark.large
@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_changes_images_and_when_made_anew_changes_them_alike(name: str) -> None:
    config = dict(CONFIGS.get(name, {}))
    if hasattr(getattr(keras.layers, name)(**config), "value_range"):
        config["value_range"] = [0, 1]
    layer = {"class_name": name, "config": config}
    augment = {
        "GaussianNoise": [layer, {"class_name": "ReLU", "config": {"max_value": 1}}],
        "RandomCrop": ["ZeroPadding2D", layer],
        "ZeroPadding2D": [layer, {"class_name": "RandomCrop", "config": CONFIGS["RandomCrop"]}],
    }.get(name, layer)
    (train,) = _with_images(recipe_of(DIGITS, episodes={"augment": augment}))
    (plain,) = _with_images(recipe_of(DIGITS))
    once, again = first(train), first(train)
    for part in ("support_x", "query_x"):
        np.testing.assert_array_equal(once[part], again[part])
    assert (changed_parts(first(plain), once) == BOTH) == (
        name not in HELPERS or "Z" in str(augment)
    )


def _with_images(recipe: Recipe) -> tuple[Setting, ...]:
    """The settings of meta-training, with colour images."""
    x = np.random.default_rng(0).random((40, 12, 12, 3), dtype=np.float32)
    data = ClassDataset.from_arrays(x, np.arange(40) % 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "load_data", lambda *_: data)
        return plan.settings(recipe, "train")


class Killed(Exception):
    pass


@pytest.mark.large
def test_a_run_with_augmentation_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(DIGITS, episodes={"augment": {"support": ["RandomFlip", MOVE]}})
    training.train(recipe, tmp_path / "whole")

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise Killed

    monkeypatch.setattr(keras.callbacks, "TensorBoard", lambda *_, **__: Kill())
    with pytest.raises(Killed):
        training.train(recipe, tmp_path / "run")
    monkeypatch.undo()
    training.train(Recipe.load(tmp_path / "run"), tmp_path / "run")
    whole, run = (
        keras.models.load_model(tmp_path / name / training.CHECKPOINT).get_weights()
        for name in ("whole", "run")
    )
    for a, b in zip(whole, run, strict=True):
        np.testing.assert_array_equal(a, b)
    unchanged = plan.make_learner(recipe, (8, 8, 1)).get_weights()
    assert not np.array_equal(unchanged[0], run[0])
    with pytest.raises(ValueError, match="holds the run of another recipe"):
        training.train(recipe_of(DIGITS), tmp_path / "run")


# === Groups ===

# Six classes with three examples in each of three groups; a pixel is the number of the group.
GROUPS = np.tile(["noto", "fluent", "twemoji"], 18)
PIXELS = np.tile([0.0, 0.5, 1.0], 18).astype(np.float32).reshape(-1, 1, 1, 1)
NAMES = {0.0: "noto", 0.5: "fluent", 1.0: "twemoji"}
ALL = {"noto", "fluent", "twemoji"}


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> ClassDataset:
    data = ClassDataset.from_arrays(PIXELS, np.repeat(np.arange(6), 9), groups=GROUPS)
    monkeypatch.setattr(plan, "load_data", lambda *_: data)
    return data


def groups_of(setting: Setting) -> tuple[set[str], set[str]]:
    """The groups from which the examples of a meta-batch come."""
    inputs = first(setting)
    support, query = (
        {NAMES[float(x)] for x in np.ravel(inputs[k])} for k in ("support_x", "query_x")
    )
    return support, query


@pytest.mark.usefixtures("drawings")
def test_groups_carry_over_to_validation_and_test_unless_they_say_otherwise() -> None:
    def groups(**sections: Any) -> list[tuple[set[str], set[str]]]:
        sections["episodes"] = {"meta_batch_size": 20, **sections["episodes"]}
        return [*map(groups_of, settings_of(recipe_of(EMOJI, **sections)))]

    noto = ({"noto"}, ALL - {"noto"})
    assert groups(
        episodes={"support_groups": ["noto"]},
        validation={"query_groups": ["fluent"]},
        evaluation={
            "support_groups": None,
            "also": [{"support_groups": ["fluent", "twemoji"], "query_groups": ["noto"]}],
        },
    ) == [noto, ({"noto"}, {"fluent"}), (ALL, ALL), ({"fluent", "twemoji"}, {"noto"})]


@pytest.mark.parametrize("key", ["support_groups", "query_groups"])
@pytest.mark.parametrize("value", ["noto", [], ["noto", "noto"], [3], [""], {"noto": 1}, 3])
def test_groups_are_a_list_of_different_names(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"episodes: {key} must be a list of names of groups.*got"):
        recipe_of(EMOJI, episodes={key: value})


def test_data_without_groups_are_told_before_they_are_loaded() -> None:
    for section in ("episodes", "validation", "evaluation"):
        with pytest.raises(ValueError, match=f"{section}: support_groups .* emoji and icons"):
            recipe_of(DIGITS, **{section: {"query_groups": ["noto"]}})


def test_a_group_on_both_sides_is_told_with_its_section() -> None:
    evaluation = {"query_groups": ["fluent"], "also": [{}, {"support_groups": ["noto", "fluent"]}]}
    with pytest.raises(ValueError, match=r"evaluation: also\[1\]: no group .* got fluent in both"):
        recipe_of(EMOJI, evaluation=evaluation)


@pytest.mark.usefixtures("drawings")
def test_groups_that_the_data_do_not_have_are_told_before_training() -> None:
    recipe = recipe_of(EMOJI, evaluation={"also": [{"support_groups": ["not"]}]})
    with pytest.raises(
        ValueError, match=r"episodes: support_groups must be .* fluent, noto, twemo"
    ):
        plan.settings(recipe, "test")[1].episodes()
    recipe = recipe_of(EMOJI, episodes={"support_groups": ["noto"], "n_shot": 4})
    with pytest.raises(
        ValueError, match=r"n_shot = 4 examples of the chosen groups .* more groups"
    ):
        plan.settings(recipe, "train")[0].episodes()


def test_settings_with_other_groups_have_names_of_their_own() -> None:
    episodes = {"n_way": 5, "n_shot": 1}
    others = [
        {"support_groups": ["noto"], "query_groups": ["fluent", "twemoji"]},
        {"augment": MOVE},
        {"augment": {"query": "RandomFlip"}},
    ]
    names = [ways_and_shots({**episodes, **other}) for other in others]
    assert names == [
        "5-way 1-shot, support from noto, queries from fluent and twemoji",
        "5-way 1-shot, augmented",
        "5-way 1-shot, augmented query",
    ]
    result = {"metric": "accuracy", "mean": 0.5, "ci95": 0.1, "n_episodes": 2}
    also = [{**result, "episodes": {**episodes, **other}} for other in others]
    by_setting = results.settings_of({**result, "episodes": episodes, "also": also})
    assert [*by_setting] == ["5-way 1-shot", *names]


# === Folders with packages ===


@pytest.mark.parametrize("name", ["emoji", "icons"])
def test_the_folder_with_packages_is_remembered_absolutely_and_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.from_dict({**DIGITS, "data": {"name": name, "manual_dir": "packages"}})
    monkeypatch.chdir("/")
    folder = str(tmp_path / "packages")
    assert recipe.to_dict()["data"]["manual_dir"] == folder
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    # There are no packages: what is missing is told.
    with pytest.raises(ValueError, match=f"^data: .*{folder}"):
        plan.load_data(recipe, "train", tmp_path)
    without = {**DIGITS, "data": {"name": name, "manual_dir": None}}
    with pytest.raises(ValueError, match=r"^data: .*downloads/manual"):
        plan.load_data(Recipe.from_dict(without), "train", tmp_path)


@pytest.mark.parametrize("value", [3, "", ["a"], {"a": 1}])
def test_what_is_no_folder_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="data: manual_dir must be the path of a folder, or null"):
        Recipe.from_dict({**DIGITS, "data": {"name": "emoji", "manual_dir": value}})


# === The documentation ===


def test_the_documentation_s_example_is_accepted() -> None:
    text = document_texts.AUGMENTATION_AND_GROUPS
    example = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    recipe = Recipe.from_dict({**EMOJI, **example})
    assert recipe.given()["episodes"]["augment"] == example["episodes"]["augment"]
    make_augmentation(recipe.episodes.augment)
