"""Measures a learner by a recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence

import numpy as np

from tfmeta.evaluation import Evaluation, evaluate
from tfmeta.learners import MetaLearner
from tfmeta.learners.output_kinds import n_classes
from tfmeta.networks import batch_norm_layers
from tfmeta.recipes.setting import Setting
from tfmeta.report import Report


def measure(
    learner: MetaLearner,
    settings: Sequence[Setting],
    n_episodes: int | None = None,
    inner_steps: int | None = None,
) -> Report:
    """Evaluates a learner in the settings of a recipe.

    Args:
        learner: MetaLearner. The learner, the recipe's own or another one.
        settings: sequence of Setting. What `tfmeta.recipes.plan.settings` returned.
        n_episodes: int. Number of episodes, instead of the recipe's. Defaults to None.
        inner_steps: int. The most inner steps to measure after, instead of the recipe's. Defaults
            to None.

    Returns:
        A report with one evaluation per setting.

    Raises:
        ValueError: If the learner has fewer outputs than an episode has classes, or `inner_steps`
            is given and it has no inner steps.
    """
    own = settings[0]
    check_n_way(learner, settings)
    return Report(
        tuple(_measured(learner, setting, n_episodes, inner_steps) for setting in settings),
        protocol=own.recipe.protocol,
        data=own.source.source,
        split=own.split,
        seed=own.seed,
        weights_sha256=weights_sha256(learner),
        inner_steps=getattr(learner, "test_inner_steps", None),
    )


def check_n_way(learner: MetaLearner, settings: Sequence[Setting]) -> None:
    """Raises a ValueError if a learner has fewer outputs than an episode of a setting has classes.

    Args:
        learner: MetaLearner. The learner.
        settings: sequence of Setting. What the learner is to be measured in.
    """
    own = settings[0]
    outputs = learner.prediction_shape(own.source.example_shape)
    if outputs is None or learner.output_kind == "values":
        return
    most = n_classes(learner.output_kind, outputs[-1])
    for setting in settings:
        if (n_way := setting.largest_n_way or 0) > most:
            raise ValueError(
                f"{own.recipe.name} is tested on {n_way} classes per episode, but this learner "
                f"tells {most} apart: choose another recipe, or another learner."
            )


def _measured(
    learner: MetaLearner, setting: Setting, n_episodes: int | None, inner_steps: int | None
) -> Evaluation:
    """Evaluates a learner in one setting."""
    batch_norm = setting.batch_norm
    if batch_norm is not None:
        learner = learner.with_batch_norm(batch_norm)
    elif batch_norm_layers(learner):
        batch_norm = getattr(learner, "batch_norm", None)
    count = setting.n_episodes if n_episodes is None else n_episodes
    # The recipe may be that of another learner, and give inner steps that this one does not have.
    if inner_steps is None and learner.has_inner_steps:
        inner_steps = setting.inner_steps
    text = "".join(f", {name} {value}" for name, value in setting.changes.items())
    print(f"Testing on {count} episodes of the {setting.split} split{text}.")
    evaluation = evaluate(learner, setting.episodes(), count, inner_steps, verbose=os.isatty(1))
    return dataclasses.replace(
        evaluation, episodes=setting.options, batch_norm=batch_norm, changes=setting.changes
    )


def weights_sha256(learner: MetaLearner) -> str:
    """Returns a digest of a learner's weights, the same in a run and in the preset made of it."""
    digest = hashlib.sha256()
    for weight in learner.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
