"""Checks of what the support set and the queries of a task may and may not affect."""

from __future__ import annotations

import keras
import numpy as np

from tfmeta.testing.case import Case
from tfmeta.testing.comparisons import assert_close, assert_weights_close
from tfmeta.testing.episodes import make_episodes, pad
from tfmeta.testing.learner_runs import (
    compiled_learner,
    first_predictions,
    first_trained_weights,
    is_sum,
    new_learner,
    predictions,
    weights_after,
)


def check_query_order(case: Case) -> None:
    """Permuted queries permute the predictions."""
    learner, inputs = new_learner(case), make_episodes(case)[0]
    order = np.random.default_rng(0).permutation(inputs["query_x"].shape[1])
    assert_close(
        predictions(learner, {**inputs, "query_x": inputs["query_x"][:, order]}),
        first_predictions(case)[:, order],
        "predictions depend on the order of the queries",
    )


def check_other_queries(case: Case) -> None:
    """A query is predicted the same alone and among many."""
    learner, inputs = new_learner(case), make_episodes(case)[0]
    more = make_episodes(case, seed=2)[0]
    query_x = np.concatenate([inputs["query_x"], more["query_x"]], axis=1)
    together = predictions(learner, {**inputs, "query_x": query_x})
    for q in range(2):
        alone = predictions(learner, {**inputs, "query_x": query_x[:, q : q + 1]})
        assert_close(alone[:, 0], together[:, q], f"query {q} depends on the queries beside it")


def check_support_order(case: Case) -> None:
    """The order of the support set changes neither predictions nor a training step."""
    inputs, query_y = make_episodes(case)
    order = np.random.default_rng(0).permutation(inputs["support_x"].shape[1])
    permuted = {**inputs, **{k: inputs[k][:, order] for k in ("support_x", "support_y")}}
    learner = compiled_learner(case)
    assert_close(
        predictions(learner, permuted),
        first_predictions(case),
        "predictions depend on the order of the support set",
    )
    assert_weights_close(
        learner,
        weights_after(learner, (permuted, query_y)),
        first_trained_weights(case),
        "training depends on the order of the support set",
    )


def check_label_permutation(case: Case) -> None:
    """Permuted support labels, and output units if there are any, permute the logits."""
    assert case.n_way is not None, "only classification has labels to permute"
    learner, inputs = new_learner(case), make_episodes(case)[0]
    learner(inputs)
    # A cycle, because an exchange of two classes would be its own inverse.
    order = np.roll(np.arange(case.n_way), 1)
    if case.permute_outputs is not None:
        case.permute_outputs(learner, [int(i) for i in order])
    relabelled = {**inputs, "support_y": np.argsort(order)[inputs["support_y"]]}
    assert_close(
        predictions(learner, relabelled),
        first_predictions(case)[..., order],
        "logits are not permuted with the labels",
    )


def check_masking(case: Case) -> None:
    """Masked padding changes neither the predictions of real queries nor a training step."""
    episodes = make_episodes(case)
    n_query = episodes[1].shape[1]
    for place in ("at the end",) + (() if case.support_order_matters else ("in between",)):
        padded, padded_y, real = pad(episodes, interleaved=place == "in between")
        learner = compiled_learner(case)
        predicted = np.take_along_axis(predictions(learner, padded), real[..., None], axis=1)
        assert_close(predicted, first_predictions(case), f"padding {place} changes predictions")
        # A loss that is a mean over the meta-batch counts padded queries; the scale corrects that.
        scale = 1 if is_sum(learner.loss) else padded_y.shape[1] / n_query
        sample_weight = (scale * padded["query_mask"]).astype(keras.config.floatx())
        assert_weights_close(
            learner,
            weights_after(learner, (padded, padded_y, sample_weight)),
            first_trained_weights(case),
            f"padding {place} changes training",
        )
