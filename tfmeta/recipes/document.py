"""Writes the reference of recipes, docs/recipes.md, from the schema.

python -m tfmeta.recipes.document docs/recipes.md
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from tfmeta.files import write_text
from tfmeta.recipes import data, schema
from tfmeta.recipes.document_texts import AUGMENTATION_AND_GROUPS
from tfmeta.recipes.inner_rules import INNER_RULES
from tfmeta.recipes.learners import LEARNERS
from tfmeta.recipes.networks import NETWORKS, NetworkFunction, SavedNetwork
from tfmeta.recipes.options import Expected, Options

# Values for examples of keys that have no default, or none that shows anything.
EXAMPLES: dict[str, Any] = {
    "height": 84,
    "width": 84,
    "image_format": {"height": 84, "width": 84},
    "image_size": [84, 84],
    "manual_dir": "./my_packages",
    "features": "miniImageNet/center",
    "largest_deviation": 1.0,
    **dict.fromkeys(("augment", "support_groups", "query_groups", "labelled_fraction")),
    "resize_to": 112,
    "trainable": False,
    "n_episodes": 600,
    "epochs": 20,
    "steps_per_epoch": 500,
    "optimizer": {"class_name": "Adam", "config": {"learning_rate": 1e-3}},
    "inner_steps": 5,
    "test_inner_steps": 10,
    "test_samples": 20,
    "inner_batch_size": None,
    "inner_loss": None,
    "global_clipnorm": 10.0,
    "clipvalue": None,
    "batch_norm": "support",
    "also": [{"n_shot": 5}, {"batch_norm": "running"}],
    "split": None,
    "train": "./training_classes",
    "validation": "./validation_classes",
    "test": "./test_classes",
    "sha256": None,
    "callbacks": [
        "TerminateOnNaN",
        {
            "class_name": "ReduceLROnPlateau",
            "config": {"monitor": "val_loss", "factor": 0.5, "patience": 3},
        },
    ],
}
# Keys that are needed with some values of others. Their defaults say nothing to a reader.
NEEDED_AT_TIMES = {"steps_per_epoch", "optimizer"}
NETWORKS_OF_YOUR_OWN: dict[str, type[Options]] = {
    "my_module:make_network": NetworkFunction,
    "./my_network.keras": SavedNetwork,
}
DATA: dict[str, type[Options]] = {
    **data.NAMED_DATA,
    "./photos": data.Folder,
    "cifar100": data.TensorFlowDataset,
}

INTRODUCTION = """# Recipes

A recipe is a YAML file that says how a learner is meta-trained and tested. `tfmeta train RECIPE
--output RUN` runs it and writes the results into the folder `RUN`. [models/](../models) has a
recipe for each preset, and more. This page is generated from the code that checks recipes, by
`python -m tfmeta.recipes.document docs/recipes.md`.

- A recipe has nine keys, all of them required: `name`, `data`, `episodes`, `network`, `learner`,
  `training`, `validation`, `evaluation` and `protocol`.
- Data, networks, learners and inner rules (how an inner step changes the weights) are chosen by
  name, with their options next to it: `{name: conv4, filters: 32}`. For an inner rule without
  options, the name alone is enough.
- Optimizers and losses are Keras's own, given by a name such as `adam`, or as Keras serialises
  them: `{class_name: Adam, config: {learning_rate: 0.001}}`.
- Numbers are read as in YAML 1.2: `1e-3` is a number, and `1:30` is text.
- A file has at most 50,000 bytes, and no key twice. The tables below say which values are accepted;
  their bounds are far above what a machine can do in a sensible time.
- A wrong key or value is refused before training starts. The error says where it is, what was
  expected and what was given. For example:
  `learner: inner_steps must be an integer ≥ 0; got 'two'.`

## A complete example

```yaml
name: my_recipe
data:
  name: ./photos                   # a folder with one sub-folder of images per class
  image_format: {height: 84, width: 84}
episodes:
  n_way: 5
  n_shot: [1, 5]                   # drawn anew for each meta-batch
  n_query: 10
  meta_batch_size: 4
network:
  name: conv4
  filters: 32
  downsampling: max_pool
learner:
  name: maml
  inner_learning_rate: 0.05
  inner_steps: 5
  test_inner_steps: 10
  inner_rule: {name: momentum, momentum: 0.5}
  batch_norm: support
training:
  epochs: 20
  steps_per_epoch: 500
  optimizer: {class_name: Adam, config: {learning_rate: 1e-3}}
  seed: 0
validation:
  n_shot: 1
  n_episodes: 200
evaluation:
  n_shot: 1
  n_episodes: 600
  inner_steps: 10                  # also measure after 0, 1, … 10 inner steps
  also:
    - {n_shot: 5}
    - {n_shot: 5, batch_norm: transductive}
protocol: >-
  my photos, 64 / 16 / 20 % of the classes for training / validation / test; 5-way 1-shot,
  10 queries per class; weights chosen on validation classes
```

## In Python

`Recipe.load(path)` reads a recipe from a file or a folder, and `Recipe.from_dict` reads one from a
dictionary. `prepare` loads the data and makes the learner, for example to look at them before
training. To train and test by a recipe, as `tfmeta train` does, pass the recipe to
`tfmeta.training.train`.

```python
from tfmeta.recipes import Recipe
from tfmeta.recipes.plan import prepare

recipe = Recipe.from_dict(
    {
        "name": "waves",
        "data": {"name": "sinusoid"},
        "episodes": {"n_shot": 5},
        "network": {"name": "mlp"},
        "learner": {"name": "maml", "inner_steps": 2},
        "training": {"epochs": 1, "steps_per_epoch": 100, "optimizer": "adam"},
        "validation": {"n_episodes": 100},
        "evaluation": {"n_episodes": 100},
        "protocol": "sinusoids, 5 support points, 10 queries",
    }
)
plan = prepare(recipe)
inputs, query_y = next(iter(plan.train.episodes()))
print(plan.learner(inputs).shape, query_y.shape)
```
"""


OWN_NETWORK = """
For example, with this function in the file `my_networks.py` in the working directory, the network
`{name: my_networks:small, width: 32}` is a network of 32 units:

```python
import keras


def small(n_outputs, input_shape, width=16):
    layers = [
        keras.Input(input_shape),
        keras.layers.Flatten(),
        keras.layers.Dense(width, activation="relu"),
    ]
    if n_outputs is not None:  # A learner that takes an encoder compares these features.
        layers.append(keras.layers.Dense(n_outputs))
    return keras.Sequential(layers)
```
"""

CALLBACKS = """
Callbacks are Keras's own, given like an optimizer. They see the epochs' results in `history.csv`:
`loss` and `val_loss` and, for classes, `accuracy` and `val_accuracy`. If a run is interrupted, they
go on as if it had not been. So only those are accepted whose state follows from the results, and
`restore_best_weights` is not: a run keeps its best weights in `best.keras` anyway. The learning
rate can also follow a schedule:

```yaml
optimizer:
  class_name: Adam
  config:
    learning_rate:
      module: keras.optimizers.schedules
      class_name: CosineDecay
      config: {initial_learning_rate: 1e-3, decay_steps: 10000}
```

With `dtype_policy: mixed_bfloat16`, the layers of the network compute in half precision, and the
weights stay in float32."""


def page() -> str:
    """Returns the reference of recipes, as Markdown."""
    inherited = "as in `episodes`"
    parts = [
        INTRODUCTION,
        "## The recipe\n",
        *_rows(schema.ClassRecipe),
        "\n## data\n",
        "`name` is one of the names below, the path of a folder, or the name of any TensorFlow "
        "Datasets data set with an image and a class label. Classes are split into training, "
        "validation and test classes. Regression tasks have no classes: each split draws its tasks "
        "with a seed of its own.\n\n"
        "A relative path starts at the working directory. A run remembers it as an absolute one, "
        "so that its commands work elsewhere, too.",
        *_choices("data", DATA),
        "\n### data: three folders\n",
        f"{inspect.getdoc(data.Folders)}\n",
        *_section("data", data.Folders),
        "\n### image_format\n",
        *_section("image_format", data.ImageFormat),
        "\n## episodes\n",
        "A size is an integer, or a range `[low, high]` from which each meta-batch draws one.\n",
        "For data with classes:\n",
        *_section("episodes", data.ClassEpisodes),
        "\nFor regression tasks:\n",
        *_section("episodes", data.RegressionEpisodes),
        AUGMENTATION_AND_GROUPS,
        "\n## network\n",
        "The network gets as many outputs as the largest episode has classes, or one for "
        "regression. For a learner that takes an encoder, it outputs features instead.",
        *_choices("network", NETWORKS | NETWORKS_OF_YOUR_OWN),
        OWN_NETWORK,
        "\n## learner",
        *_choices("learner", LEARNERS),
        "\n## inner_rule\n",
        "An option of most learners with inner steps.",
        *_choices("inner_rule", INNER_RULES),
        "\n## training\n",
        *_section("training", schema.Training),
        CALLBACKS,
        "\n## validation\n",
        *_section("validation", schema.ClassValidation, inherited),
        "\n## evaluation\n",
        *_section("evaluation", schema.ClassEvaluation, inherited),
        "\n### also\n",
        "Each entry of the list has the options that differ from the evaluation's own.\n",
        *_section("also", schema.ClassSetting, "as in `evaluation`"),
    ]
    return "\n".join(parts) + "\n"


def example(model: type[Options], name: str | None = None) -> dict[str, Any]:
    """Returns a mapping that a section accepts, with all of its keys.

    Args:
        model: type. The section.
        name: str. The name by which it is chosen. Defaults to None, for sections without one.
    """
    values: dict[str, Any] = {} if name is None else {"name": name}
    for key, field in model.model_fields.items():
        if key in NEEDED_AT_TIMES or (
            key != "name" and (field.is_required() or field.default in (None, ()))
        ):
            values[key] = EXAMPLES[key]
        elif key != "name":
            values[key] = list(d) if isinstance(d := field.default, tuple) else d
    return values


def _choices(section: str, models: Mapping[str, type[Options]]) -> list[str]:
    lines: list[str] = []
    for name, model in models.items():
        lines += [f"\n### {section}: {name}\n", f"{inspect.getdoc(model)}\n"]
        lines += _section(section, model, name=name)
    return lines


def _section(
    section: str, model: type[Options], inherited: str | None = None, name: str | None = None
) -> list[str]:
    """Returns an example of a section and, if it has options besides the name, their table."""
    lines = [f"```yaml\n{section}: {_yaml(example(model, name))}\n```"]
    if model.model_fields.keys() - {"name"}:
        lines += ["", *_rows(model, inherited)]
    return lines


def _rows(model: type[Options], inherited: str | None = None) -> list[str]:
    lines = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    sizes = data.ClassEpisodes.model_fields
    # What a section defines anew, it does not inherit.
    own = inspect.get_annotations(model)
    for key, field in model.model_fields.items():
        if key == "name" and not issubclass(model, schema.Recipe):
            continue
        if field.is_required() or key in NEEDED_AT_TIMES:
            default = "required"
        elif inherited and key not in own and (field.default is None or key in sizes):
            default = inherited if key != "inner_steps" or key in sizes else "null"
        else:
            default = f"`{_yaml(field.default)}`"
        lines.append(f"| `{key}` | {_value(field)} | {default} | {_description(model, key)} |")
    return lines


def _value(field: FieldInfo) -> str:
    """Returns the values that a key takes, as text."""
    for item in field.metadata:
        if isinstance(item, Expected):
            return item.of(field.annotation).replace("|", "\\|")
    inner = [text for part in get_args(field.annotation) if (text := _nested(part))]
    return f"{inner[0]}, or null" if inner else "see below"


def _nested(annotation: Any) -> str | None:
    """Returns the text of the first `Expected` of an `Annotated` type."""
    found = [item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Expected)]
    return found[0].of(annotation.__origin__) if found else None


def _description(model: type[Options], key: str) -> str:
    """Returns the description of a key in the section, or in the section that it derives from."""
    for base in model.__mro__:
        field = getattr(base, "model_fields", {}).get(key)
        if field is not None and field.description:
            return " ".join(str(field.description).split())
    return ""


def _yaml(value: Any) -> str:
    """Returns a value in YAML's flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    write_text(Path(sys.argv[1]), page())
