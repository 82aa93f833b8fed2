"""Recipes are checked when they are read, and make what they say."""

import copy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

from tfmeta import MAML
from tfmeta.recipes import Recipe

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = sorted((REPOSITORY / "models").glob("*/*.yaml"))

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
    """All that a recipe can make."""
    recipe = Recipe.from_dict(content)
    source = recipe.load_data("train")
    for split in ("train", "validation", "test"):
        recipe.make_episodes(source, split)
    recipe.make_learner(source.example_shape)


# === Reading ===


@pytest.mark.parametrize("path", SHIPPED, ids=[f"{p.parent.name}/{p.name}" for p in SHIPPED])
def test_shipped_recipes_load_and_survive_a_round_trip(path: Path) -> None:
    recipe = Recipe.load(path)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe
    if path.name == "recipe.yaml":
        assert Recipe.load(path.parent) == recipe
        assert recipe.name == path.parent.name


def test_there_are_shipped_recipes() -> None:
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=[f"{p.parent.name}/{p.name}" for p in SHIPPED])
def test_shipped_recipes_make_the_learner_they_describe(path: Path) -> None:
    recipe = Recipe.load(path)
    shape = {
        "sinusoid": (1,),
        "linear": (1,),
        "digits": (8, 8, 1),
        "mini_imagenet": (84, 84, 3),
        "cifar_fs": (32, 32, 3),
    }.get(recipe.data["name"], (28, 28, 1))
    before = recipe.to_dict()
    learner = recipe.make_learner(shape)
    assert recipe.to_dict() == before
    n_outputs = 1 if recipe.is_regression else recipe.episodes["n_way"]
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
    "path",
    [
        "training/epochs",
        "training/steps_per_epoch",
        "validation/n_episodes",
        "evaluation/n_episodes",
    ],
)
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", None, True, [3]])
def test_numbers_must_be_positive_integers(path: str, value: Any) -> None:
    section, key = path.split("/")
    bound = "≥ 2" if path == "evaluation/n_episodes" else "> 0"
    with pytest.raises(ValueError, match=f"{section}: {key} must be an integer {bound}; got"):
        Recipe.from_dict(changed(path, value))


def test_a_confidence_interval_needs_two_episodes() -> None:
    with pytest.raises(ValueError, match="evaluation: n_episodes must be an integer ≥ 2; got 1"):
        Recipe.from_dict(changed("evaluation/n_episodes", 1))


@pytest.mark.parametrize("path", ["training/seed", "evaluation/inner_steps"])
@pytest.mark.parametrize("value", [-1, 1.5, "3", True, [3]])
def test_seed_and_inner_steps_must_be_natural_numbers(path: str, value: Any) -> None:
    section, key = path.split("/")
    with pytest.raises(ValueError, match=f"{section}: {key} must be an integer ≥ 0; got"):
        Recipe.from_dict(changed(path, value))


@pytest.mark.parametrize("path", ["name", "protocol", "data/name", "network/name", "learner/name"])
@pytest.mark.parametrize("value", [3, None, ["maml"], {"a": 1}])
def test_names_must_be_text(path: str, value: Any) -> None:
    with pytest.raises(ValueError, match="must be text; got"):
        Recipe.from_dict(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "base"),
    [
        ("episodes/n_shot", "five", SINUSOID),
        ("episodes/n_shot", [1, 2, 3], SINUSOID),
        ("episodes/n_way", "five", DIGITS),
        ("episodes/n_way", {"a": 1}, DIGITS),
        ("episodes/meta_batch_size", "x", SINUSOID),
        ("validation/n_query", 0, SINUSOID),
        ("network/hidden_units", 3, SINUSOID),
        ("network/hidden_units", ["a"], SINUSOID),
        ("network/name", "conv4", SINUSOID),
        ("learner/inner_learning_rate", "1e-2", SINUSOID),
        ("learner/inner_learning_rate", None, SINUSOID),
        ("learner/inner_steps", "two", SINUSOID),
        ("learner/inner_steps", [1], SINUSOID),
        ("learner/batch_norm", "none", SINUSOID),
        ("learner/inner_loss", "no_such_loss", SINUSOID),
        ("learner/inner_loss", 3, SINUSOID),
        ("training/optimizer", "adamm", SINUSOID),
        ("training/optimizer", 3, SINUSOID),
        ("training/optimizer", None, SINUSOID),
        ("training/optimizer", ["adam"], SINUSOID),
        ("training/optimizer", {"config": {}}, SINUSOID),
        ("training/optimizer", {"class_name": "Adam", "config": {"rate": 1.0}}, SINUSOID),
        (
            "training/optimizer",
            {"class_name": "Adam", "config": {"learning_rate": "fast"}},
            SINUSOID,
        ),
        ("data/name", "./no/such/folder", DIGITS),
        ("data", {"name": str(REPOSITORY / "models"), "image_format": 3}, DIGITS),
        ("data", {"name": str(REPOSITORY / "models"), "image_format": {"size": 3}}, DIGITS),
        ("data", {"name": str(REPOSITORY / "models"), "image_format": {"height": 3}}, DIGITS),
        (
            "data",
            {"name": str(REPOSITORY / "models"), "image_format": {"height": "a", "width": 1}},
            DIGITS,
        ),
    ],
)
def test_a_wrong_value_is_a_value_error_in_few_words(
    path: str, value: Any, base: dict[str, Any]
) -> None:
    with pytest.raises(ValueError) as error:
        build(changed(path, value, base))
    assert len(str(error.value)) > 20
    assert "Traceback" not in str(error.value)


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
    learner = Recipe.from_dict(SINUSOID).make_learner((1,))
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
    learner = Recipe.from_dict(DIGITS).make_learner((8, 8, 1))
    assert isinstance(learner, MAML)
    assert learner.network.output_shape == (None, 2)
    assert learner.batch_norm == "support"
    for loss in (learner.loss, learner.inner_loss):
        assert isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
        assert loss.get_config()["from_logits"] is True


@pytest.mark.parametrize(("n_way", "n_outputs"), [([2, 4], 4), (None, 5)])
def test_the_network_has_outputs_for_the_most_classes(n_way: Any, n_outputs: int) -> None:
    content = changed("episodes", {} if n_way is None else {"n_way": n_way}, DIGITS)
    learner = Recipe.from_dict(content).make_learner((8, 8, 1))
    assert learner.network.output_shape == (None, n_outputs)


def test_the_seed_decides_the_initial_weights() -> None:
    def weights(seed: int) -> np.ndarray:
        learner = Recipe.from_dict(changed("training/seed", seed)).make_learner((1,))
        return np.concatenate([w.ravel() for w in learner.get_weights()])

    np.testing.assert_array_equal(weights(3), weights(3))
    assert not np.array_equal(weights(3), weights(4))


def test_splits_draw_other_episodes_with_their_own_sizes() -> None:
    recipe = Recipe.from_dict(SINUSOID)
    source = recipe.load_data("train")
    first = {
        split: next(iter(recipe.make_episodes(source, split)))
        for split in ("train", "validation", "test")
    }
    assert [b[0]["query_x"].shape for b in first.values()] == [(3, 5, 1), (3, 6, 1), (3, 7, 1)]
    support = [b[0]["support_x"].numpy() for b in first.values()]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not np.isin(support[a], support[b]).any()


def test_episodes_depend_on_the_seed_and_go_on_from_start() -> None:
    recipe = Recipe.from_dict(SINUSOID)
    source = recipe.load_data("train")

    def support(**options: Any) -> list[np.ndarray]:
        episodes = recipe.make_episodes(source, "train", **options).take(2)
        return [inputs["support_x"].numpy() for inputs, _ in episodes]

    np.testing.assert_array_equal(support(), support(seed=3))
    assert not np.array_equal(support(), support(seed=4))
    np.testing.assert_array_equal(support()[1], support(start=3)[0])


def test_class_data_have_the_classes_of_the_split() -> None:
    recipe = Recipe.from_dict(DIGITS)
    classes = [recipe.load_data(s).class_names for s in ("train", "validation", "test")]
    assert sorted(name for names in classes for name in names) == [str(k) for k in range(10)]


def test_a_number_in_exponent_notation_is_a_number(tmp_path):
    text = (REPOSITORY / "models/maml_sinusoid/recipe.yaml").read_text(encoding="utf-8")
    changed = text.replace("inner_learning_rate: 0.01", "inner_learning_rate: 1e-2")
    assert changed != text
    (tmp_path / "recipe.yaml").write_text(changed, encoding="utf-8")
    assert Recipe.load(tmp_path).learner["inner_learning_rate"] == 0.01
