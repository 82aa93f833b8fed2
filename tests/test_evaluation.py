"""The meta-test protocol against independent computations."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta.evaluation import Evaluation, evaluate
from tfmeta.report import Report

RNG = np.random.default_rng(0)
MEASURED = sorted((Path(__file__).parents[1] / "models").glob("*/*.json"))


class Constant(tfmeta.MetaLearner):
    """Predicts class 1 of 3, whatever it is shown."""

    def adapt_task(self, support_x, support_y, support_mask=None, training=False):
        return tf.constant([0.0, 1.0, 0.5])

    def predict_task(self, state, query_x, query_mask=None, training=False):
        return tf.tile(state[None], [tf.shape(query_x)[0], 1])


class Doubling(tfmeta.MetaLearner):
    """Predicts (2·x, -x) for the input x, whatever it is shown."""

    output_kind = "values"

    def adapt_task(self, support_x, support_y, support_mask=None, training=False):
        return tf.constant([[2.0, -1.0]])

    def predict_task(self, state, query_x, query_mask=None, training=False):
        return query_x @ state


def episodes(query_y: np.ndarray, mask: np.ndarray | None = None, batch: int = 4) -> Any:
    """A finite data set with these targets `[N, Q]` or `[N, Q, *y]`."""
    n, q = query_y.shape[:2]
    inputs = {
        "support_x": RNG.normal(size=(n, 3, 1)).astype("float32"),
        "support_y": np.zeros((n, 3, *query_y.shape[2:]), query_y.dtype),
        "query_x": np.linspace(-1, 1, n * q, dtype="float32").reshape(n, q, 1),
    }
    parts = (inputs, query_y) if mask is None else (inputs, query_y, mask)
    return tf.data.Dataset.from_tensor_slices(parts).batch(batch), inputs["query_x"]


def by_hand(values: np.ndarray) -> tuple[float, float]:
    n = len(values)
    mean = sum(values) / n
    variance = sum((v - mean) ** 2 for v in values) / (n - 1)
    return mean, 1.96 * variance**0.5 / n**0.5


@pytest.fixture(scope="module")
def maml() -> tfmeta.MAML:
    keras.utils.set_random_seed(1)
    network = tfmeta.backbones.mlp(hidden_units=(8,))
    return tfmeta.MAML(network, 0.02, inner_steps=1, test_inner_steps=3, inner_loss="mse")


@pytest.fixture(scope="module")
def sinusoids() -> tf.data.Dataset:
    tasks = tfmeta.data.load("sinusoid")
    return tasks.episodes(n_shot=4, n_query=6, meta_batch_size=4, seed=5)


def test_accuracy_is_the_share_of_right_queries_of_each_episode() -> None:
    query_y = RNG.integers(0, 3, size=(12, 10))
    result = evaluate(Constant(), episodes(query_y)[0], 12)
    expected = (query_y == 1).sum(axis=1) / 10
    assert result.metric == "accuracy"
    np.testing.assert_allclose(result.values, expected, rtol=1e-12)
    mean, interval = by_hand(expected)
    assert result.mean == pytest.approx(mean, rel=1e-12)
    assert result.ci95 == pytest.approx(interval, rel=1e-12)


def test_mse_is_the_mean_over_queries_and_targets() -> None:
    query_y = RNG.normal(size=(8, 5, 2)).astype("float32")
    data, x = episodes(query_y)
    result = evaluate(Doubling(), data, 8)
    predictions = np.concatenate([2 * x, -x], axis=-1).astype("float64")
    expected = ((predictions - query_y) ** 2).mean(axis=(1, 2))
    assert result.metric == "mse"
    np.testing.assert_allclose(result.values, expected, rtol=1e-6)
    mean, interval = by_hand(expected)
    assert (result.mean, result.ci95) == pytest.approx((mean, interval), rel=1e-6)


def test_targets_without_the_last_dimension_of_one_output_are_regression() -> None:
    class Twice(Doubling):
        def adapt_task(self, support_x, support_y, support_mask=None, training=False):
            return tf.constant([[2.0]])

    query_y = RNG.normal(size=(4, 5)).astype("float32")
    data, x = episodes(query_y)
    result = evaluate(Twice(), data, 4)
    assert result.metric == "mse"
    np.testing.assert_allclose(
        result.values, ((2 * x[..., 0] - query_y) ** 2).mean(axis=1), rtol=1e-6
    )


def test_what_the_learner_returns_decides_the_metric_and_no_shape_does() -> None:
    # A regression of as many targets as a classifier of integers has: shapes could not tell.
    query_y = RNG.normal(size=(4, 5)).astype("float32")
    with pytest.raises(ValueError, match=r"targets of the queries .* \(4, 5, 2\).*got \(4, 5\)"):
        evaluate(Doubling(), episodes(query_y)[0], 4)

    class ThreeLogits(Constant):
        """Three queries, three classes: labels as one-hot vectors would have the same shape."""

    one_hot = np.eye(3, dtype="float32")[RNG.integers(0, 3, size=(4, 3))]
    with pytest.raises(ValueError, match=r"labels of the queries .* \(4, 3\) .*got \(4, 3, 3\)"):
        evaluate(ThreeLogits(), episodes(one_hot)[0], 4)


def test_targets_that_would_be_broadcast_are_refused() -> None:
    query_y = RNG.normal(size=(4, 5, 1)).astype("float32")
    with pytest.raises(ValueError, match=r"must have the shape \(4, 5, 2\) .*got \(4, 5, 1\)"):
        evaluate(Doubling(), episodes(query_y)[0], 4)


@pytest.mark.parametrize("regression", [False, True])
def test_masked_queries_do_not_count(regression: bool) -> None:
    mask = (RNG.uniform(size=(8, 10)) < 0.6).astype("float32")
    mask[:, 0] = 1
    if regression:
        query_y = RNG.normal(size=(8, 10, 2)).astype("float32")
        data, x = episodes(query_y, mask)
        result = evaluate(Doubling(), data, 8)
        per_query = ((np.concatenate([2 * x, -x], -1) - query_y) ** 2).mean(axis=-1)
    else:
        query_y = RNG.integers(0, 3, size=(8, 10))
        result = evaluate(Constant(), episodes(query_y, mask)[0], 8)
        per_query = (query_y == 1).astype(float)
    expected = [row[kept > 0].mean() for row, kept in zip(per_query, mask, strict=True)]
    np.testing.assert_allclose(result.values, expected, rtol=1e-6)
    assert not np.allclose(expected, per_query.mean(axis=1))


def test_exactly_the_first_n_episodes_count(maml: tfmeta.MAML, sinusoids: Any) -> None:
    six = evaluate(maml, sinusoids, 6, inner_steps=1)
    eight = evaluate(maml, sinusoids, 8, inner_steps=1)
    assert six.n_episodes == 6
    assert six.by_inner_step is not None and eight.by_inner_step is not None
    assert six.by_inner_step.shape == (2, 6)
    np.testing.assert_array_equal(six.values, eight.values[:6])
    np.testing.assert_array_equal(six.by_inner_step, eight.by_inner_step[:, :6])


def test_a_last_meta_batch_that_is_smaller_counts_as_many_as_it_has() -> None:
    query_y = RNG.integers(0, 3, size=(10, 7))
    result = evaluate(Constant(), episodes(query_y, batch=4)[0], 10)
    np.testing.assert_allclose(result.values, (query_y == 1).mean(axis=1))


def test_a_data_set_that_ends_early_is_an_error() -> None:
    query_y = RNG.integers(0, 3, size=(8, 5))
    with pytest.raises(ValueError, match=r"9 episodes were asked for.* ended at 8"):
        evaluate(Constant(), episodes(query_y)[0], 9)


def test_a_single_episode_or_negative_steps_are_errors(maml: tfmeta.MAML, sinusoids: Any) -> None:
    with pytest.raises(ValueError, match=r"n_episodes must be at least 2, .* got 1"):
        evaluate(maml, sinusoids, 1)
    with pytest.raises(ValueError, match="inner_steps must be at least 0; got -1"):
        evaluate(maml, sinusoids, 4, inner_steps=-1)


def test_after_k_steps_it_is_as_good_as_a_learner_of_k_steps(
    maml: tfmeta.MAML, sinusoids: Any
) -> None:
    result = evaluate(maml, sinusoids, 8, inner_steps=4)
    assert result.by_inner_step is not None
    for k, row in enumerate(result.by_inner_step):
        other = tfmeta.MAML(maml.network, 0.02, test_inner_steps=k, inner_loss="mse")
        np.testing.assert_allclose(row, evaluate(other, sinusoids, 8).values, rtol=1e-5)
    # `values` are those of the learner as it is; and steps make a difference.
    np.testing.assert_allclose(result.values, result.by_inner_step[3], rtol=1e-5)
    assert not np.allclose(result.by_inner_step[2], result.by_inner_step[3], rtol=1e-3)


def test_a_learner_without_inner_steps_says_so_in_one_sentence() -> None:
    query_y = RNG.integers(0, 3, size=(4, 5))
    with pytest.raises(ValueError, match=r"^Constant has no inner steps") as error:
        evaluate(Constant(), episodes(query_y)[0], 4, inner_steps=2)
    assert "user code" not in str(error.value)


def test_evaluating_changes_no_weight(maml: tfmeta.MAML, sinusoids: Any) -> None:
    before = maml.get_weights()
    evaluate(maml, sinusoids, 4, inner_steps=2)
    for old, new in zip(before, maml.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_report_survives_json() -> None:
    values = np.array([0.2, 0.4, 0.9], np.float32)
    result = Evaluation.of("accuracy", values, np.stack([values / 2, values]))
    summary = json.loads(json.dumps(result.to_dict()))
    assert summary["metric"] == "accuracy"
    assert summary["n_episodes"] == 3
    assert [row["inner_steps"] for row in summary["by_inner_step"]] == [0, 1]
    for row, row_values in zip(summary["by_inner_step"], (values / 2, values), strict=True):
        assert (row["mean"], row["ci95"]) == pytest.approx(by_hand(row_values), rel=1e-5)
    assert (summary["mean"], summary["ci95"]) == pytest.approx(by_hand(values), rel=1e-5)
    again = Evaluation.from_dict(summary)
    assert (again.estimate, again.steps, again.n_episodes) == (result.estimate, result.steps, 3)
    assert "by_inner_step" not in Evaluation.of("mse", values).to_dict()


def test_tasks_that_diverge_are_null_in_json_and_not_finite_when_read_back() -> None:
    result = Evaluation.of("mse", np.array([1.0, np.inf]))
    written = json.loads(json.dumps(result.to_dict()))
    assert (written["mean"], written["ci95"]) == (None, None)
    assert not Evaluation.from_dict(written).estimate.is_finite


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_evaluations_of_published_models_survive_being_read_and_written(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    again = Report.from_dict(content).to_dict()
    content.setdefault("batch_norm", None)  # The first files did not say it.
    assert again == content
