"""Mutated recipes are read as what they say, or refused in one sentence that names file and key."""

import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tfmeta.recipes import Recipe
from tfmeta.recipes.yaml_files import MOST_BYTES, read_yaml

WAVES: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "sinusoid"},
    "episodes": {"n_shot": [2, 4], "n_query": 5, "meta_batch_size": 3},
    "network": {"name": "mlp", "hidden_units": [8, 8], "n_context": 0},
    "learner": {
        "name": "meta_lstm",
        "inner_steps": 2,
        "test_inner_steps": 3,
        "inner_batch_size": 2,
        "hidden_units": 4,
        "forget_bias": [4.0, 5.0],
        "first_order": True,
    },
    "training": {
        "epochs": 2,
        "steps_per_epoch": 3,
        "optimizer": {"class_name": "SGD", "config": {"learning_rate": 0.25}},
        "seed": 3,
        "callbacks": [{"class_name": "EarlyStopping", "config": {"patience": 2}}],
    },
    "validation": {"n_query": 6, "n_episodes": 6},
    "evaluation": {"n_query": 7, "n_episodes": 9, "inner_steps": 2, "also": [{"n_shot": 5}]},
    "protocol": "a tiny one",
}
CLASSES: dict[str, Any] = {
    **WAVES,
    "data": {"name": "./", "image_format": {"height": 8, "width": 8, "channels": 1}},
    "episodes": {
        "n_way": [2, 3],
        "n_shot": 1,
        "n_query": 3,
        "augment": {"support": ["RandomFlip"], "query": {"class_name": "RandomFlip"}},
    },
    "network": {"name": "conv4", "filters": 4},
    "learner": {
        "name": "maml",
        "inner_learning_rate": 0.5,
        "inner_rule": {"name": "adam", "beta_1": 0.5},
    },
}
# What no key accepts: nothing so large, not finite, or of another kind.
NEVER = [10**9, 10**40, -1, -0.5, float("nan"), float("inf"), -float("inf"), [], {}, [[1]], "1:30"]
# A key that accepts one of them.
FINE = {("seed", 10**9), ("name", "1:30"), ("protocol", "1:30"), ("callbacks", "[]")}
FINE |= {("hidden_units", "[]"), ("also", "[]"), ("also", "{}"), ("episodes", "{}")}
FINE |= {("forget_bias", -1), ("forget_bias", "-0.5")}
# Only Keras knows the names of optimizers.
FINE |= {("optimizer", "1:30")}


def places(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path of each value in a recipe, sections included."""
    items = part.items() if isinstance(part, dict) else enumerate(part)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(recipe: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    content = copy.deepcopy(recipe)
    part = content
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return content


def last_name(path: tuple[Any, ...]) -> str:
    return next(key for key in reversed(path) if isinstance(key, str))


def mutations() -> Iterator[tuple[tuple[Any, ...], Any, dict[str, Any]]]:
    for recipe in (WAVES, CLASSES):
        for path in places(recipe):
            for value in NEVER:
                yield path, value, changed(recipe, path, value)


def test_no_mutation_is_taken_for_something_else(tmp_path: Path) -> None:
    """Hundreds of values that no key accepts, each in each place."""
    count, began = 0, time.perf_counter()
    for path, value, content in mutations():
        # What only Keras knows is checked for its kind alone: see the next test.
        if "config" in path or "class_name" in path:
            continue
        key = last_name(path)
        if (key, value if isinstance(value, int | str) else repr(value)) in FINE:
            continue
        with pytest.raises(ValueError) as error:
            Recipe.from_dict(content)
        message = str(error.value)
        assert str(path[0]) in message, (path, value, message)
        assert key in message or f"got {value!r}" in message, (path, value, message)
        assert "\n" not in message
        assert len(message) < 500
        count += 1
    assert count > 600
    assert time.perf_counter() - began < 20


def test_what_is_accepted_is_plain_small_and_kept(tmp_path: Path) -> None:
    """Values of other keys, swapped or dropped at random: refused, or kept as they are."""
    rng = random.Random(0)
    values = [value for _, value, _ in mutations()][: len(NEVER)]
    values += [1, 2, 1.5, True, False, None, "adam", "maml", "mlp", [1, 2], {"name": "maml"}]
    accepted = 0
    for i in range(400):
        recipe = (WAVES, CLASSES)[i % 2]
        content = copy.deepcopy(recipe)
        for _ in range(rng.randint(1, 2)):
            path = rng.choice([*places(content)])
            if rng.random() < 0.3:
                part = content
                for key in path[:-1]:
                    part = part[key]
                del part[path[-1]]
            else:
                content = changed(content, path, copy.deepcopy(rng.choice(values)))
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(content))
        try:
            read = Recipe.load(file)
        except ValueError as error:
            assert str(error).startswith(str(file)), error
            assert "\n" not in str(error)
            assert len(str(error)) < 600 + len(str(file))
            continue
        accepted += 1
        kept = read.to_dict()
        assert Recipe.from_dict(kept) == read
        json.dumps(kept, allow_nan=False)
        for section in ("episodes", "learner", "training"):
            for key, value in content[section].items():
                assert _plain(kept[section][key]) == _plain(value), (section, key)
    assert 10 < accepted < 390


def _plain(value: Any) -> Any:
    """A value as JSON writes it, where True is no number, but 1 may be read as 1.0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value, sort_keys=True)
    return float(value)


BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 1\nepochs: 2", "the key 'epochs' occurs twice, in line 1"),
        ("training: {epochs: 1, epochs: 2}", "the key 'epochs' occurs twice"),
        ("x: &x {a: 1}\ny: {<<: *x, b: 1, b: 2}", "the key 'b' occurs twice"),
        (BOMB, "more than 2,000 values"),
        ("a: &a [*a]", "a value contains itself"),
        ("a: &a {b: *a}", "a value contains itself"),
        ("[" * 1000, "more than 20 levels"),
        ("a: [" + "1, " * 3000 + "]", "more than 2,000 values"),
        ("#" * (MOST_BYTES + 1), "is too large"),
        ("a: !!int 1:30", "'1:30' is no number"),
        ("a: !!float 1:30", "'1:30' is no number"),
        ("a: " + "9" * 5000, "is no number"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("---\na: 1\n---\na: 2", "another document"),
    ],
    ids=lambda text: text[:20],
)
def test_a_file_that_expands_or_contradicts_itself_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    began = time.perf_counter()
    with pytest.raises(ValueError, match=message) as error:
        read_yaml(file)
    assert str(error.value).startswith(str(file))
    assert len(str(error.value)) < len(str(file)) + 200
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("010", "010"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("1e-3", 0.001),
        ("-1.5", -1.5),
        (".5", 0.5),
        ("+3", 3),
        ("-.inf", float("-inf")),
        ("true", True),
        ("null", None),
        ("'5'", "5"),
    ],
)
def test_numbers_are_those_of_yaml_1_2(text: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"a: {text}")
    read = read_yaml(tmp_path / "a.yaml")["a"]
    assert (read, type(read)) == (value, type(value))


def test_settings_may_be_repeated_by_an_alias(tmp_path: Path) -> None:
    text = "a: &a {n_shot: 1}\nb: *a\nc: {<<: *a, n_query: 2}"
    (tmp_path / "a.yaml").write_text(text)
    content = read_yaml(tmp_path / "a.yaml")
    assert content["b"] == {"n_shot": 1}
    assert content["c"] == {"n_shot": 1, "n_query": 2}


def test_a_meta_batch_that_no_machine_holds_is_refused_by_its_section() -> None:
    large = {"n_way": 1000, "n_shot": 500, "n_query": 500, "meta_batch_size": 2}
    for path in (("episodes",), ("validation",), ("evaluation",), ("evaluation", "also", 0)):
        content = copy.deepcopy(CLASSES)
        part = content
        for key in path:
            part = part[key]
        part.update(large)
        with pytest.raises(ValueError, match=f"{path[0]}: .*n_way × .* at most 1,000,000"):
            Recipe.from_dict(content)
