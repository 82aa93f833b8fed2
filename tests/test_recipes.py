"""Recipes are checked when they are read, and make what they say."""

import copy
import hashlib
import importlib.util
import inspect
import json
import os
import random
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

import tfmeta
from tfmeta import MAML, inner_rules, learners
from tfmeta.backbones.efficientnet_lite0_weights import PACKAGE
from tfmeta.data import ClassDataset, ImageFormat, TaskDistribution, names
from tfmeta.recipes import Recipe, document, network_makers, plan, schema
from tfmeta.recipes import data as data_options
from tfmeta.recipes.inner_rules import INNER_RULES
from tfmeta.recipes.learners import LEARNERS
from tfmeta.recipes.networks import NETWORKS
from tfmeta.recipes.options import Options
from tfmeta.recipes.yaml_files import read_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = sorted((REPOSITORY / "models").glob("*/*.yaml")) or ["models/ has no recipes"]
PRESETS = sorted((REPOSITORY / "saved_models").glob("*/preset.json"))

SINUSOID: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "sinusoid"},
    "episodes": {"n_shot": 4, "n_query": 5, "meta_batch_size": 3},
    "network": {"name": "mlp", "hidden_units": [8]},
    "learner": {
        "name": "maml",
        "inner_learning_rate": 0.03,
        "inner_steps": 2,
        "test_inner_steps": 4,
        "first_order": True,
    },
    "training": {
        "epochs": 2,
        "steps_per_epoch": 3,
        "optimizer": {"class_name": "SGD", "config": {"learning_rate": 0.25}},
        "seed": 3,
    },
    "validation": {"n_query": 6, "n_episodes": 6},
    "evaluation": {"n_query": 7, "n_episodes": 9, "inner_steps": 2},
    "protocol": "a tiny one",
}
DIGITS: dict[str, Any] = {
    **SINUSOID,
    "data": {"name": "digits"},
    "episodes": {"n_way": 2, "n_shot": 1, "n_query": 3},
    "network": {"name": "linear"},
    "learner": {"name": "maml", "batch_norm": "support"},
}


def changed(path: str, value: Any, recipe: dict[str, Any] = SINUSOID) -> dict[str, Any]:
    """A copy of a recipe with one value set: `path` is like "training/seed"."""
    content = copy.deepcopy(recipe)
    *sections, key = path.split("/")
    part = content
    for section in sections:
        part = part[section]
    part[key] = value
    return content


def build(content: Any) -> None:
    """Makes everything that a recipe describes."""
    plan.prepare(Recipe.from_dict(content))


def make_learner(content: Any, example_shape: tuple[int, ...]) -> Any:
    return plan.make_learner(Recipe.from_dict(content), example_shape)


# === Reading ===


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_shipped_recipes_load_and_survive_a_round_trip(path: Path) -> None:
    recipe = Recipe.load(path)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe
    if path.name == "recipe.yaml":
        assert Recipe.load(path.parent) == recipe
        assert recipe.name == path.parent.name


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.parent.name)
def test_recipes_inside_presets_load_unchanged(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))["recipe"]
    assert Recipe.from_dict(content).to_dict() == content


def test_the_recipe_of_a_run_of_tfmeta_0_1_is_still_the_same_recipe(tmp_path: Path) -> None:
    # It wrote the seed, and the options in the order in which they were given.
    content = {**DIGITS, "learner": {"batch_norm": "support", "name": "maml"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert Recipe.load(tmp_path).to_dict() == Recipe.from_dict(DIGITS).to_dict()


# Recipes that differ in their data or training alone make the same learner.
BY_LEARNER = {
    json.dumps([recipe.network.given(), recipe.learner.given(), len(recipe.data.given())]): path
    for path in SHIPPED
    for recipe in [Recipe.load(path)]
}


# They take longest to make or to trace.
SLOW = (
    "maml_mini_imagenet_5w1s",
    "meta_lstm_mini_imagenet_5w1s",
    "prototypical_network_cifar_fs_encoder_5w1s",
    "reptile_omniglot_5w1s",
    "simple_shot_birds_5w1s",
    "simple_shot_flowers_5w1s",
)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            id=f"{path.parent.name}/{path.name}",
            marks=[pytest.mark.large] if path.parent.name in SLOW else [],
        )
        for path in BY_LEARNER.values()
    ],
)
def test_shipped_recipes_make_the_learner_they_describe(path: Path) -> None:
    recipe = Recipe.load(path)
    if recipe.network.name == "efficientnet_lite0" and importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"{PACKAGE} is not installed")
    height, width = getattr(recipe.data, "image_size", None) or (28, 28)
    shape = {
        "sinusoid": (1,),
        "linear": (1,),
        "digits": (8, 8, 1),
        "mini_imagenet": (84, 84, 3),
        "cifar_fs": (32, 32, 3),
        "embeddings": (12,),
        "emoji": (64, 64, 3),
        "oxford_flowers102": (height, width, 3),
        "caltech_birds2011": (height, width, 3),
    }.get(recipe.data.name, (28, 28, 1))
    before = recipe.to_dict()
    learner = plan.make_learner(recipe, shape)
    assert recipe.to_dict() == before
    assert type(learner) is learners.get(recipe.learner.name)
    n_outputs = 1 if recipe.is_regression else recipe.episodes.n_way
    x = np.random.default_rng(0).normal(size=(1, n_outputs, *shape))
    support_y = x[..., 0] if recipe.is_regression else np.arange(n_outputs)[None]
    episode = {"support_x": x, "support_y": support_y, "query_x": x[:, :1]}
    assert learner(episode).shape == (1, 1, n_outputs)


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("protocoll", "protocol"),
        ("episodes/n_shots", "n_shot"),
        ("network/hidden_unit", "hidden_units"),
        ("learner/inner_step", "inner_steps"),
        ("training/epoch", "epochs"),
        ("validation/n_episode", "n_episodes"),
        ("evaluation/inner_stepps", "inner_steps"),
    ],
)
def test_a_wrong_key_is_told_with_the_nearest_right_one(path: str, right: str) -> None:
    *section, key = path.split("/")
    with pytest.raises(ValueError, match=f"{key!r}; did you mean {right!r}") as error:
        Recipe.from_dict(changed(path, 1))
    assert str(error.value).startswith("".join(section) or "the recipe")


def test_a_wrong_key_of_the_data_is_told_with_the_nearest_right_one() -> None:
    content = changed("data", {"name": "omniglot", "rotation": False}, DIGITS)
    with pytest.raises(ValueError, match=r"data: .*'rotation'; did you mean 'rotations'"):
        Recipe.from_dict(content)


def test_a_folder_of_images_that_is_not_there_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"name": "photos", "image_format": {"height": 28, "width": 28}}
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Recipe.from_dict(changed("data", data, DIGITS)).data.image_format.height == 28
    monkeypatch.chdir("/")
    with pytest.raises(ValueError, match=r"data: there is no folder 'photos' in .* begins with ./"):
        Recipe.from_dict(changed("data", data, DIGITS))


@pytest.mark.parametrize(
    ("path", "wrong", "right"),
    [("network/name", "mpl", "mlp"), ("learner/name", "mamll", "maml")],
)
def test_a_wrong_name_is_told_with_the_nearest_right_one(path: str, wrong: str, right: str) -> None:
    with pytest.raises(ValueError, match=f"{wrong!r}; did you mean {right!r}"):
        Recipe.from_dict(changed(path, wrong))


@pytest.mark.parametrize("key", [*SINUSOID])
def test_each_section_is_needed(key: str) -> None:
    content = {k: v for k, v in SINUSOID.items() if k != key}
    with pytest.raises(ValueError, match=rf"missing \['{key}'\]"):
        Recipe.from_dict(content)


@pytest.mark.parametrize(
    "path",
    [
        "data/name",
        "network/name",
        "learner/name",
        "training/epochs",
        "training/steps_per_epoch",
        "training/optimizer",
        "validation/n_episodes",
        "evaluation/n_episodes",
    ],
)
def test_needed_keys_of_a_section_are_told_when_missing(path: str) -> None:
    section, key = path.split("/")
    content = copy.deepcopy(SINUSOID)
    del content[section][key]
    with pytest.raises(ValueError, match=rf"{section}: missing \['{key}'\]"):
        Recipe.from_dict(content)


@pytest.mark.parametrize("content", [None, 3, "text", [], list(SINUSOID)])
def test_a_recipe_that_is_no_mapping_is_an_error(content: Any) -> None:
    with pytest.raises(ValueError, match="the recipe must be a mapping"):
        Recipe.from_dict(content)


@pytest.mark.parametrize("section", [k for k, v in SINUSOID.items() if isinstance(v, dict)])
@pytest.mark.parametrize("value", [3, "text", None, ["name", "epochs"], []])
def test_a_section_that_is_no_mapping_is_an_error(section: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{section} must be a mapping"):
        Recipe.from_dict(changed(section, value))


@pytest.mark.parametrize(
    ("path", "least"),
    [
        ("training/epochs", 0),
        ("training/steps_per_epoch", 1),
        ("validation/n_episodes", 1),
        ("evaluation/n_episodes", 2),
    ],
)
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", None, True, [3]])
def test_numbers_must_be_positive_integers(path: str, least: int, value: Any) -> None:
    section, key = path.split("/")
    if type(value) is int and value >= least:
        Recipe.from_dict(changed(path, value))
        return
    message = f"{section}: {key} must be an integer from {least} to 1,000,000; got"
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict(changed(path, value))


def test_a_confidence_interval_needs_two_episodes() -> None:
    with pytest.raises(
        ValueError, match=r"evaluation: n_episodes must be an integer from 2 to .*; got 1"
    ):
        Recipe.from_dict(changed("evaluation/n_episodes", 1))


@pytest.mark.parametrize("path", ["training/seed", "evaluation/inner_steps"])
@pytest.mark.parametrize("value", [-1, 1.5, "3", True, [3]])
def test_seed_and_inner_steps_must_be_natural_numbers(path: str, value: Any) -> None:
    section, key = path.split("/")
    message = rf"{section}: {key} must be an integer from 0 to [0-9,]*(, or null)?; got"
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict(changed(path, value))


@pytest.mark.parametrize("path", ["name", "protocol", "data/name", "network/name", "learner/name"])
@pytest.mark.parametrize("value", [3, None, ["maml"], {"a": 1}])
def test_names_must_be_text(path: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{path.replace('/', ': ')} must be text; got"):
        Recipe.from_dict(changed(path, value))


SIZE = "an integer from 1 to 100,000, or a range [low, high] of such integers"
WAYS = "an integer from 2 to 100,000, or a range [low, high] of such integers"
KERAS = "a Keras name or {class_name: …, config: {…}}"


def folder_with(image_format: Any) -> dict[str, Any]:
    return {"name": str(REPOSITORY / "models"), "image_format": image_format}


@pytest.mark.parametrize(
    ("path", "value", "base", "message"),
    [
        ("episodes/n_shot", "five", SINUSOID, f"episodes: n_shot must be {SIZE}; got 'five'."),
        (
            "episodes/n_shot",
            [1, 2, 3],
            SINUSOID,
            f"episodes: n_shot must be {SIZE}; got [1, 2, 3].",
        ),
        ("episodes/n_shot", [3, 2], SINUSOID, f"episodes: n_shot must be {SIZE}; got [3, 2]."),
        ("episodes/n_way", "five", DIGITS, f"episodes: n_way must be {WAYS}; got 'five'."),
        ("episodes/n_way", {"a": 1}, DIGITS, f"episodes: n_way must be {WAYS}; got {{'a': 1}}."),
        ("episodes/n_way", 1, DIGITS, f"episodes: n_way must be {WAYS}; got 1."),
        (
            "episodes/meta_batch_size",
            "x",
            SINUSOID,
            "episodes: meta_batch_size must be an integer from 1 to 100,000; got 'x'.",
        ),
        ("validation/n_query", 0, SINUSOID, f"validation: n_query must be {SIZE}; got 0."),
        (
            "evaluation/also",
            [{"n_shot": 2}, {"n_shot": 0}],
            SINUSOID,
            f"evaluation: also[1]: n_shot must be {SIZE}; got 0.",
        ),
        (
            "evaluation/also",
            {"n_shot": 2},
            SINUSOID,
            "evaluation: also must be a list of mappings; got {'n_shot': 2}.",
        ),
        (
            "evaluation/also",
            [{"batch_norm": "suport"}],
            DIGITS,
            'evaluation: also[0]: batch_norm must be "transductive", "support" or "running"; '
            "got 'suport'; did you mean 'support'?",
        ),
        (
            "network/hidden_units",
            3,
            SINUSOID,
            "network: hidden_units must be a list of at most 100 integers from 1 to 16,384; got 3.",
        ),
        (
            "network/hidden_units",
            ["a"],
            SINUSOID,
            "network: hidden_units must be a list of at most 100 integers from 1 to 16,384; "
            "got ['a'].",
        ),
        (
            "learner/inner_learning_rate",
            "1e-2",
            SINUSOID,
            "learner: inner_learning_rate must be a number from 1e-30 to 1,000,000; got '1e-2'.",
        ),
        (
            "learner/inner_learning_rate",
            None,
            SINUSOID,
            "learner: inner_learning_rate must be a number from 1e-30 to 1,000,000; got None.",
        ),
        (
            "learner/inner_learning_rate",
            float("nan"),
            SINUSOID,
            "learner: inner_learning_rate must be a number from 1e-30 to 1,000,000; got nan.",
        ),
        (
            "learner/inner_steps",
            "two",
            SINUSOID,
            "learner: inner_steps must be an integer from 0 to 1,000; got 'two'.",
        ),
        (
            "learner/inner_steps",
            [1],
            SINUSOID,
            "learner: inner_steps must be an integer from 0 to 1,000; got [1].",
        ),
        (
            "learner/batch_norm",
            "none",
            SINUSOID,
            'learner: batch_norm must be "transductive", "support" or "running"; got \'none\'.',
        ),
        ("learner/inner_loss", 3, SINUSOID, f"learner: inner_loss must be {KERAS}; got 3."),
        (
            "learner/inner_rule",
            "sdg",
            SINUSOID,
            "learner: inner_rule: unknown name 'sdg'; did you mean 'sgd'?",
        ),
        (
            "learner/inner_rule",
            {"name": "momentum", "momentum": "much"},
            SINUSOID,
            "learner: inner_rule: momentum must be a number from -1,000,000 to 1,000,000; "
            "got 'much'.",
        ),
        ("training/optimizer", 3, SINUSOID, f"training: optimizer must be {KERAS}; got 3."),
        ("training/optimizer", None, SINUSOID, f"training: optimizer must be {KERAS}; got None."),
        ("training/optimizer", ["adam"], SINUSOID, f"training: optimizer must be {KERAS}; got ["),
        (
            "training/optimizer",
            {"config": {}},
            SINUSOID,
            f"training: optimizer must be {KERAS}; got {{'config': {{}}}}.",
        ),
        ("data", folder_with(3), DIGITS, "data: image_format must be a mapping; got 3."),
        (
            "data",
            folder_with({"size": 3}),
            DIGITS,
            "data: image_format: unknown key 'size'; expected one of ['height', 'width', ",
        ),
        ("data", folder_with({"height": 3}), DIGITS, "data: image_format: missing ['width']."),
        (
            "data",
            folder_with({"height": "a", "width": 1}),
            DIGITS,
            "data: image_format: height must be an integer from 1 to 2,048; got 'a'.",
        ),
        (
            "data",
            folder_with({"height": 1, "width": 1, "channels": 2}),
            DIGITS,
            "data: image_format: channels must be 1 (grey) or 3 (RGB); got 2.",
        ),
        (
            "data",
            {"name": "omniglot", "protocol": "lakes"},
            DIGITS,
            "data: protocol must be \"random1200\" or \"lake\"; got 'lakes'; did you mean 'lake'?",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_what_is_accepted(
    path: str, value: Any, base: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        Recipe.from_dict(changed(path, value, base))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "value", "base", "section"),
    [
        ("network", {"name": "conv4"}, SINUSOID, "network: input_shape must be"),
        ("learner/inner_loss", "no_such_loss", SINUSOID, "learner: Could not interpret"),
        (
            "network",
            {"name": "efficientnet_lite0"},
            DIGITS,
            "network: efficientnet_lite0 is an encoder, but this learner needs",
        ),
        ("training/optimizer", "adamm", SINUSOID, "training: optimizer: Could not"),
        (
            "training/optimizer",
            {"class_name": "Adam", "config": {"rate": 1.0}},
            SINUSOID,
            "training: optimizer: .*rate",
        ),
        ("data/name", "./no/such/folder", DIGITS, "data: No such folder: .*no/such/folder"),
        ("episodes/n_way", 3, DIGITS, "episodes: n_way=3 needs at least 3 classes"),
    ],
)
def test_what_only_keras_or_the_data_can_refuse_names_its_section(
    path: str, value: Any, base: dict[str, Any], section: str
) -> None:
    with pytest.raises(ValueError, match=section):
        build(changed(path, value, base))


def test_no_such_file_is_told_with_what_is_expected(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ValueError, match=r"No recipe at .*expected a YAML file or a folder"):
            Recipe.load(path)


@pytest.mark.parametrize(
    "text", [b"a: [1", b"a: b: c", b"\xff\xfe\x00", b"!!python/object:os.x {}"]
)
def test_invalid_yaml_is_told_with_the_file_in_one_line(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "recipe.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=r"recipe\.yaml is no valid YAML: ") as error:
        Recipe.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "name: x\n"])
def test_errors_name_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"recipe\.yaml: the recipe"):
        Recipe.load(tmp_path)


# === Building ===


def test_the_learner_has_the_options_of_the_recipe() -> None:
    learner = make_learner(SINUSOID, (1,))
    assert isinstance(learner, MAML)
    assert learner.inner_learning_rate == 0.03
    assert (learner.inner_steps, learner.test_inner_steps) == (2, 4)
    assert learner.first_order is True
    assert keras.losses.serialize(learner.inner_loss) == keras.losses.serialize(
        keras.losses.get("mse")
    )
    assert [w.shape for w in learner.network.weights] == [(1, 8), (8,), (8, 1), (1,)]
    assert isinstance(learner.optimizer, keras.optimizers.SGD)
    assert float(learner.optimizer.learning_rate) == 0.25
    assert learner.loss == "mse"


def test_a_classifier_has_an_output_per_class_and_a_loss_of_logits() -> None:
    learner = make_learner(DIGITS, (8, 8, 1))
    assert isinstance(learner, MAML)
    assert learner.network.output_shape == (None, 2)
    assert learner.batch_norm == "support"
    for loss in (learner.loss, learner.inner_loss):
        assert isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
        assert loss.get_config()["from_logits"] is True


@pytest.mark.parametrize(("n_way", "n_outputs"), [([2, 4], 4), (None, 5)])
def test_the_network_has_outputs_for_the_most_classes(n_way: Any, n_outputs: int) -> None:
    content = changed("episodes", {} if n_way is None else {"n_way": n_way}, DIGITS)
    learner = make_learner(content, (8, 8, 1))
    assert learner.network.output_shape == (None, n_outputs)


def flat_weights(learner: Any) -> np.ndarray:
    return np.concatenate([w.ravel() for w in learner.get_weights()])


def test_the_seed_decides_the_initial_weights() -> None:
    def weights(seed: int) -> np.ndarray:
        return flat_weights(make_learner(changed("training/seed", seed), (1,)))

    np.testing.assert_array_equal(weights(3), weights(3))
    assert not np.array_equal(weights(3), weights(4))


def test_the_initial_weights_are_those_of_published_runs() -> None:
    # Of tfmeta 0.1, which seeded everything with keras.utils.set_random_seed.
    keras.utils.set_random_seed(3)
    network = tfmeta.backbones.mlp(1, (1,), (8,))
    by_hand = flat_weights(MAML(network, inner_learning_rate=0.03, inner_loss="mse"))
    weights = flat_weights(make_learner(SINUSOID, (1,)))
    np.testing.assert_array_equal(weights, by_hand)
    published = Recipe.load(REPOSITORY / "models/maml_sinusoid")
    weights = flat_weights(plan.make_learner(published, (1,)))
    # Rounded, as another processor may round the last digit.
    digest = hashlib.sha256(np.round(weights * 1e4).astype("<i4").tobytes()).hexdigest()
    assert digest == "9b314258803433cb431303637dfa1b4574508df02989bd598b0825b36886abff"


def test_making_a_learner_leaves_the_global_random_state_as_it_was() -> None:
    def draws(between: Callable[[], Any]) -> list[Any]:
        keras.utils.set_random_seed(7)
        between()
        numpy = np.random.rand()  # noqa: NPY002
        return [random.random(), numpy, tf.random.uniform([]), keras.random.uniform([])]

    expected = draws(lambda: None)
    np.testing.assert_array_equal(draws(lambda: make_learner(DIGITS, (8, 8, 1))), expected)


@pytest.mark.parametrize(
    "ranges", [{"n_way": [2, 4]}, pytest.param({"n_query": [1, 6]}, marks=pytest.mark.large)]
)
def test_padded_queries_do_not_count_in_the_accuracy_of_fit(ranges: dict[str, Any]) -> None:
    content = changed("episodes", {"n_way": 2, "n_query": 4, "meta_batch_size": 8}, DIGITS)
    content["episodes"].update(ranges)
    content["network"] = {"name": "mlp", "hidden_units": [6]}
    content["learner"] = {"name": "prototypical_network"}
    recipe = Recipe.from_dict(content)
    (train,) = plan.settings(recipe, "train")
    learner = plan.make_learner(recipe, train.source.example_shape)
    inputs, query_y, mask = next(b for b in train.episodes() if np.min(b[2]) == 0)
    right = np.asarray(learner(inputs)).argmax(axis=-1) == query_y
    logs = learner.test_on_batch(inputs, query_y, mask, return_dict=True)
    masked = np.average(right, weights=mask)
    assert abs(masked - np.mean(right)) > 1e-3
    assert logs["accuracy"] == pytest.approx(masked, rel=1e-5)
    # Training reports it under the same name, before its step.
    logs = learner.train_on_batch(inputs, query_y, mask, return_dict=True)
    assert logs["accuracy"] == pytest.approx(masked, rel=1e-5)


def test_splits_draw_other_episodes_with_their_own_sizes() -> None:
    prepared = plan.prepare(Recipe.from_dict(SINUSOID))
    splits = (prepared.train, prepared.validation, prepared.tests[0])
    first = [next(iter(setting.episodes()))[0] for setting in splits]
    assert [inputs["query_x"].shape for inputs in first] == [(3, 5, 1), (3, 6, 1), (3, 7, 1)]
    support = [inputs["support_x"].numpy() for inputs in first]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not np.isin(support[a], support[b]).any()


def test_further_settings_differ_from_the_test_s_own_in_what_they_say() -> None:
    also = [{"n_shot": 2, "batch_norm": "running"}, {"n_episodes": 5, "inner_steps": 0}]
    own, *others = plan.settings(Recipe.from_dict(changed("evaluation/also", also)), "test")
    sizes = {"n_shot": 4, "n_query": 7, "meta_batch_size": 3}
    assert (own.options, own.n_episodes, own.inner_steps, own.batch_norm) == (sizes, 9, 2, None)
    assert own.changes == {}
    assert others[0].options == {**sizes, "n_shot": 2}
    assert (others[0].batch_norm, others[0].n_episodes) == ("running", 9)
    assert (others[1].options, others[1].n_episodes, others[1].inner_steps) == (sizes, 5, 0)
    assert [setting.changes for setting in others] == also


def test_episodes_depend_on_the_seed_and_go_on_from_start() -> None:
    recipe = Recipe.from_dict(SINUSOID)

    def support(seed: int | None = None, start: int = 0) -> list[np.ndarray]:
        (setting,) = plan.settings(recipe, "train", seed=seed)
        return [inputs["support_x"].numpy() for inputs, _ in setting.episodes(start).take(2)]

    np.testing.assert_array_equal(support(), support(seed=3))
    assert not np.array_equal(support(), support(seed=4))
    np.testing.assert_array_equal(support()[1], support(start=3)[0])


def test_class_data_have_the_classes_of_the_split() -> None:
    recipe = Recipe.from_dict(DIGITS)
    splits = ("train", "validation", "test")
    classes = [plan.load_data(recipe, split).class_names for split in splits]
    assert sorted(name for names in classes for name in names) == [str(k) for k in range(10)]


def test_a_number_in_exponent_notation_is_a_number(tmp_path: Path) -> None:
    text = (REPOSITORY / "models/maml_sinusoid/recipe.yaml").read_text(encoding="utf-8")
    changed = text.replace("inner_learning_rate: 0.01", "inner_learning_rate: 1e-2")
    assert changed != text
    (tmp_path / "recipe.yaml").write_text(changed, encoding="utf-8")
    assert Recipe.load(tmp_path).learner.inner_learning_rate == 0.01


# === The schema is that of the library ===

NETWORK_FUNCTIONS = {
    **network_makers.NETWORKS,
    "relation_encoder": tfmeta.backbones.relation_encoder,
    "efficientnet_lite0": tfmeta.backbones.pretrained,
    "identity": tfmeta.backbones.identity,
}
STANDS_FOR: dict[str, tuple[type[Options], Callable[..., Any], Sequence[str]]] = {
    **{
        f"network {name}": (
            model,
            NETWORK_FUNCTIONS[name],
            ("n_way", "n_outputs", "input_shape", "name"),
        )
        for name, model in NETWORKS.items()
    },
    **{
        f"learner {name}": (
            model,
            learners.BY_NAME[name],
            (
                *("network", "encoder", "head", "relation_module", "n_targets", "augment"),
                *("generator", "example_encoder"),
            ),
        )
        for name, model in LEARNERS.items()
    },
    **{
        f"rule {name}": (model, inner_rules.BY_NAME[name], ())
        for name, model in INNER_RULES.items()
    },
    **{
        f"data {name}": (
            model,
            resolve_name(names.NAMED[name].loader),
            ("split", "data_dir"),
        )
        for name, model in data_options.NAMED_DATA.items()
    },
    "data folder": (data_options.Folder, resolve_name(names.FOLDER.loader), ("path", "split")),
    "data of TFDS": (
        data_options.TensorFlowDataset,
        resolve_name(names.TFDS.loader),
        ("name", "split", "data_dir"),
    ),
    "image format": (data_options.ImageFormat, ImageFormat, ()),
    "episodes of classes": (
        data_options.ClassEpisodes,
        ClassDataset.episodes,
        ("self", "seed", "start", "shard"),
    ),
    "episodes of tasks": (
        data_options.RegressionEpisodes,
        TaskDistribution.episodes,
        ("self", "seed", "start", "shard"),
    ),
}


def simplified(hint: Any) -> Any:
    """A type as YAML knows it: all sequences are lists, paths text, and a literal its values."""
    if hint is Any or hint is inspect.Parameter.empty:
        return Any
    origin, arguments = get_origin(hint), [a for a in get_args(hint) if a is not Ellipsis]
    if origin is Literal:
        return frozenset(arguments)
    if origin in (Union, types.UnionType):
        return frozenset(simplified(a) for a in arguments if get_origin(a) is not os.PathLike)
    if origin is not None and issubclass(origin, Sequence):
        return ("list", frozenset(simplified(a) for a in arguments))
    return "ImageFormat" if inspect.isclass(hint) and hint.__name__ == "ImageFormat" else hint


@pytest.mark.parametrize("name", STANDS_FOR)
def test_a_section_has_the_options_defaults_and_types_of_what_it_stands_for(name: str) -> None:
    model, function, given_apart = STANDS_FOR[name]
    parameters = {
        p.name: p
        for p in inspect.signature(function).parameters.values()
        if p.name not in given_apart and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    left_out = {"name", *given_apart} - parameters.keys()
    fields = {k: f for k, f in model.model_fields.items() if k not in left_out}
    hints = get_type_hints(model)
    of_function = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    if name.startswith("learner ") and "task_mapping" in fields:
        # An option of all learners, which they take among their keyword arguments.
        parameters["task_mapping"] = inspect.signature(tfmeta.MetaLearner).parameters[
            "task_mapping"
        ]
        of_function = {**get_type_hints(tfmeta.MetaLearner.__init__), **of_function}
    assert fields.keys() == parameters.keys()
    for key, field in fields.items():
        default = parameters[key].default
        assert field.is_required() == (default is inspect.Parameter.empty), key
        if not field.is_required():
            assert field.default == default, key
        expected = simplified(of_function[key])
        if expected is not Any and key != "channels":
            assert simplified(hints[key]) == expected, key


def test_the_schema_knows_all_that_the_library_has() -> None:
    assert LEARNERS.keys() == learners.BY_NAME.keys()
    assert INNER_RULES.keys() == inner_rules.BY_NAME.keys()
    assert NETWORKS.keys() == network_makers.NETWORKS.keys()
    assert data_options.NAMED_DATA.keys() == names.NAMED.keys()


def test_a_recipe_is_refused_without_importing_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(changed("learner/inner_step", 1)))
    program = f"""
import sys, types
package = types.ModuleType("tfmeta")
package.__path__ = [{str(Path(tfmeta.__file__).parent)!r}]
sys.modules["tfmeta"] = package
from tfmeta.recipes import Recipe
try:
    Recipe.load({str(tmp_path)!r})
except ValueError as error:
    print(error)
heavy = ("tensorflow", "keras", "numpy", "matplotlib")
assert not [name for name in heavy if name in sys.modules]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "learner: unknown key 'inner_step'; did you mean 'inner_steps'?" in done.stdout


def test_the_documentation_of_recipes_is_the_schema_s() -> None:
    page = REPOSITORY / "docs" / "recipes.md"
    assert page.read_text(encoding="utf-8") == document.page()


EXAMPLES = [
    *((name, model) for name, model in (NETWORKS | document.NETWORKS_OF_YOUR_OWN).items()),
    *((name, model) for name, model in LEARNERS.items()),
    *((name, model) for name, model in INNER_RULES.items()),
    *((name, model) for name, model in document.DATA.items()),
    (None, data_options.Folders),
    (None, schema.Training),
    (None, schema.ClassValidation),
    (None, schema.ClassEvaluation),
    (None, schema.ClassSetting),
    (None, data_options.ImageFormat),
]


@pytest.mark.parametrize(("name", "model"), EXAMPLES)
def test_examples_in_the_documentation_are_accepted(
    name: Any, model: type[Options], tmp_path: Path
) -> None:
    text = document._yaml(document.example(model, name))
    assert f"{text}\n```" in document.page()
    (tmp_path / "section.yaml").write_text(text)
    read = model.model_validate(read_yaml(tmp_path / "section.yaml"))
    assert read.given().keys() == model.model_fields.keys()


def test_the_documentation_s_complete_example_is_a_recipe(tmp_path: Path) -> None:
    text = document.page().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = Recipe.load(tmp_path)
    assert (recipe.name, recipe.episodes.n_shot) == ("my_recipe", (1, 5))
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe
