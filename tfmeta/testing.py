"""The conformance harness: what every learner, ours or a user's, must hold to.

In a test file of one's own:

    CASE = tfmeta.testing.Case("my learner", make=lambda: MyLearner(network()))

    @pytest.mark.parametrize("check", tfmeta.testing.checks(CASE))
    def test_my_learner(check):
        tfmeta.testing.run(check, CASE)
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.meta_learner import MetaLearner

__all__ = ["CHECKS", "Case", "checks", "run"]

# Rounding of float32 through a few layers; every comparison of weights is after plain SGD, for
# Adam divides by the gradient's size and so turns rounding into whole steps.
RTOL, ATOL = 1e-4, 1e-5
LEARNING_RATE = 0.1
N_TASKS = 2
SUPPORT_PADDING, QUERY_PADDING = 3, 2
TRAINING_TASKS, TEST_TASKS = 8, 200
ERROR_PROBABILITY = 1e-6


def _adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(0.01)


@dataclasses.dataclass(frozen=True)
class Case:
    """A learner and what its method promises.

    Keep its network tiny, and without dropout: two ways of computing the same draw other masks.
    The learner's class and the layers of its network must be registered with Keras, for they are
    saved and loaded.

    Args:
        name: What messages call it.
        make: Makes a new learner, not compiled; every call under the same seed of
            `keras.utils.set_random_seed` gives the same weights. It is also called under other
            dtype policies: make losses and networks inside it.
        n_way: Classes per task; None for regression, with `y` of shape `(1,)`.
        example_shape: The shape of an example `x`.
        n_shot: Support examples per class (regression: in all), ≥ 1.
        n_query: Queries per class (regression: in all), ≥ 1.
        loss: The loss to compile with, by name, function or object. Defaults to the learner's
            `default_loss()`, or the mean squared error.
        support_order_matters: Whether the method depends on the order of the support set, for
            example because it takes it in mini-batches.
        transductive: Whether a query's prediction may depend on the other queries. None: whether
            the learner has `batch_norm="transductive"`.
        permute_outputs: What a relabelling of the classes needs besides. None: nothing; permuted
            support labels permute the logits. A learner with an output unit per class gives a
            function of (learner, order) that permutes these units in place, such that unit `i`
            becomes what unit `order[i]` was; the logits must then be permuted alike.
        exact_gradient: Whether a training step follows the gradient of the compiled loss. False
            for first-order approximations.
        optimizer: Makes the optimizer of the learning check.
        training_steps: Meta-training steps of the learning check, of 8 tasks each.

    Raises:
        ValueError: If a size is not positive, or `n_way` is less than 2.

    Example:

    >>> import tfmeta
    >>> case = Case(
    ...     "MAML for regression",
    ...     lambda: tfmeta.MAML(
    ...         keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), inner_loss="mse"
    ...     ),
    ...     n_way=None,
    ... )
    >>> checks(case)[:3]
    ['contract', 'eager_equals_graph', 'train_step_equals_default']
    >>> run("contract", case)
    """

    name: str
    make: Callable[[], MetaLearner]
    n_way: int | None = 3
    example_shape: tuple[int, ...] = (4,)
    n_shot: int = 2
    n_query: int = 3
    loss: Any = None
    support_order_matters: bool = False
    transductive: bool | None = None
    permute_outputs: Callable[[MetaLearner, Sequence[int]], None] | None = None
    exact_gradient: bool = True
    optimizer: Callable[[], keras.optimizers.Optimizer] = _adam
    training_steps: int = 150

    def __post_init__(self) -> None:
        for name in ("n_shot", "n_query", "training_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be ≥ 1; got {getattr(self, name)}.")
        if self.n_way is not None and self.n_way < 2:
            raise ValueError(f"n_way must be ≥ 2, or None for regression; got {self.n_way}.")


CHECKS: dict[str, Callable[[Case], None]] = {}
_APPLIES: dict[str, Callable[[Case, MetaLearner], bool]] = {}


def checks(case: Case) -> list[str]:
    """The names of the checks that apply to a case. Makes its learner once, to look at it.

    Args:
        case: The learner and what it promises.

    Returns:
        Keys of `CHECKS`, in their order.
    """
    learner = _new(case)
    return [name for name in CHECKS if _APPLIES[name](case, learner)]


def run(check: str, case: Case) -> None:
    """Checks one property of a new learner of this case, whether or not it applies to it.

    Everything is seeded: a check passes always or never. The global random state is reseeded; the
    float type and the dtype policy are afterwards what they were.

    Args:
        check: A key of `CHECKS`.
        case: The learner and what it promises.

    Raises:
        AssertionError: If the property does not hold, or the learner raises an error on the way.
        ValueError: If there is no such check.
    """
    if check not in CHECKS:
        raise ValueError(f"check must be one of {sorted(CHECKS)}; got {check!r}.")
    try:
        CHECKS[check](case)
    except Exception as error:
        reason = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        promise = (inspect.getdoc(CHECKS[check]) or "").split("\n")[0]
        raise AssertionError(
            f"{case.name} fails {check!r}. Expected: {promise}\n{reason}{error}"
        ) from error


def _check(
    applies: Callable[[Case, MetaLearner], bool] = lambda case, learner: True,
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    def register(function: Callable[[Case], None]) -> Callable[[Case], None]:
        name = function.__name__.removeprefix("_check_")
        CHECKS[name], _APPLIES[name] = function, applies
        return function

    return register


# === What the checks are made of ===

Episodes = tuple[dict[str, np.ndarray], np.ndarray]


def _new(case: Case) -> MetaLearner:
    keras.utils.set_random_seed(0)
    learner = case.make()
    if not isinstance(learner, MetaLearner):
        raise TypeError(f"make must return a MetaLearner; got {type(learner).__name__}.")
    return learner


def _compiled(
    case: Case, learning_rate: float = LEARNING_RATE, run_eagerly: bool = True
) -> MetaLearner:
    """A new learner, built, with plain SGD. Eager by default: tracing costs more than it saves."""
    learner = _new(case)
    metrics = ["accuracy"] if case.n_way else ["mae"]
    optimizer = keras.optimizers.SGD(learning_rate)
    learner.compile(optimizer, _loss(case, learner), metrics=metrics, run_eagerly=run_eagerly)
    learner(_episodes(case)[0])
    return learner


def _loss(case: Case, learner: MetaLearner) -> Any:
    if case.loss is None and case.n_way:
        return learner.default_loss()
    if case.loss is None:
        return keras.losses.MeanSquaredError()
    if isinstance(case.loss, keras.losses.Loss):
        # Anew, because a loss computes in the float type under which it was made.
        config = {k: v for k, v in case.loss.get_config().items() if k != "dtype"}
        return type(case.loss).from_config(config)
    return case.loss


def _is_sum(loss: Any) -> bool:
    return getattr(loss, "reduction", None) == "sum"


def _episodes(case: Case, n_tasks: int = N_TASKS, seed: int = 1, noise: float = 1.0) -> Episodes:
    """Tasks that nothing but the support set's labels can tell apart.

    Classification: each task has random class centres, and examples are a centre plus noise. The
    centres are exchangeable: without the support labels, each class is as likely as any other.
    Regression: `y = a · mean(x)` with `x` in [1, 2] and `a` drawn from {-1, 1} for each task.

    Examples are in random order, so that positions tell nothing either.
    """
    rng = np.random.default_rng(seed)
    floatx = keras.config.floatx()
    n_way, shape = case.n_way, case.example_shape
    centres = rng.normal(size=(n_tasks, n_way or 0, *shape))
    signs = rng.choice([-1.0, 1.0], size=(n_tasks, 1, 1))

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        if n_way is None:
            x = rng.uniform(1, 2, size=(n_tasks, n, *shape))
            y = signs * x.reshape(n_tasks, n, -1).mean(axis=-1, keepdims=True)
            return x.astype(floatx), y.astype(floatx)
        y = rng.permuted(np.tile(np.repeat(np.arange(n_way), n), (n_tasks, 1)), axis=1)
        x = centres[np.arange(n_tasks)[:, None], y]
        return (x + noise * rng.normal(size=x.shape)).astype(floatx), y

    support_x, support_y = draw(case.n_shot)
    query_x, query_y = draw(case.n_query)
    return {"support_x": support_x, "support_y": support_y, "query_x": query_x}, query_y


def _take_tasks(episodes: Episodes, tasks: Any) -> Episodes:
    inputs, query_y = episodes
    return {k: v[tasks] for k, v in inputs.items()}, query_y[tasks]


def _predictions(learner: MetaLearner, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(learner(inputs, training=False))


def _train(learner: MetaLearner, *steps: Any) -> list[np.ndarray]:
    """The weights after these steps."""
    for data in steps:
        learner.train_on_batch(*data)
    return _weights(learner)


def _weights(learner: MetaLearner) -> list[np.ndarray]:
    return [v.numpy() for v in learner.weights]


def _state(learner: MetaLearner) -> list[tuple[keras.Variable, np.ndarray]]:
    """All variables and their values; but metrics are there to be changed."""
    metrics = {id(v) for v in learner.metrics_variables}
    return [(v, v.numpy()) for v in learner.variables if id(v) not in metrics]


def _equal(actual: Any, expected: Any, what: str, rtol: float = RTOL, atol: float = ATOL) -> None:
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, err_msg=what)


def _equal_weights(
    learner: MetaLearner,
    actual: list[np.ndarray],
    expected: list[np.ndarray],
    what: str,
    rtol: float = RTOL,
    atol: float = ATOL,
) -> None:
    for variable, a, b in zip(learner.weights, actual, expected, strict=True):
        _equal(a, b, f"{what}: {variable.path}", rtol, atol)


def _is_transductive(case: Case, learner: MetaLearner) -> bool:
    if case.transductive is not None:
        return case.transductive
    return getattr(learner, "batch_norm", None) == "transductive"


def _has_default_update(case: Case, learner: MetaLearner) -> bool:
    return all(
        getattr(type(learner), name, None) is getattr(MetaLearner, name, None)
        for name in ("train_step", "task_gradients")
    )


@contextlib.contextmanager
def _precision(floatx: str, policy: str) -> Iterator[None]:
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def _reloaded(model: keras.Model) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return keras.models.load_model(path)


# === The contract ===


@_check()
def _check_contract(case: Case) -> None:
    """Logits [T, Q, n_way] or values [T, Q, 1], finite, of the learner's float type.

    They are those of `adapt_task` and `predict_task`, and the same where `fit` has turned integer
    labels into floats.
    """
    learner = _new(case)
    inputs, query_y = _episodes(case)
    predictions = learner(inputs)
    expected = (*query_y.shape[:2], case.n_way or 1)
    assert tuple(predictions.shape) == expected, (
        f"predictions have the shape {tuple(predictions.shape)}, not {expected}"
    )
    assert predictions.dtype == keras.config.floatx(), f"predictions are {predictions.dtype.name}"
    assert np.isfinite(predictions).all(), "predictions are not finite"
    for t in range(N_TASKS):
        task = {name: tf.constant(value[t]) for name, value in inputs.items()}
        state = learner.adapt_task(task["support_x"], task["support_y"])
        one = learner.predict_task(state, task["query_x"])
        _equal(
            tf.cast(one, predictions.dtype),
            predictions[t],
            f"adapt_task and predict_task on task {t} differ from call",
        )
    if case.n_way:
        as_floats = {**inputs, "support_y": inputs["support_y"].astype(keras.config.floatx())}
        _equal(_predictions(learner, as_floats), predictions, "labels as floats predict otherwise")


@_check()
def _check_eager_equals_graph(case: Case) -> None:
    """Predictions and a training step are the same eagerly and in a graph, and change weights."""
    batches = [_episodes(case, seed=s) for s in (1, 2)]
    _compare_eager_with_graph(case, batches, RTOL, ATOL)


def _compare_eager_with_graph(
    case: Case, batches: Sequence[Episodes], rtol: float, atol: float
) -> None:
    eager, graph = (_compiled(case, run_eagerly=e) for e in (True, False))
    inputs = keras.tree.map_structure(tf.constant, batches[0][0])
    predicted = tf.function(lambda x: graph(x, training=False))(inputs)
    _equal(predicted, _predictions(eager, inputs), "call differs in a graph", rtol, atol)
    start = _weights(eager)
    trained = _train(eager, *batches)
    _equal_weights(
        eager, _train(graph, *batches), trained, "weights after training in a graph", rtol, atol
    )
    assert not eager.trainable_variables or any(
        np.any(a != b) for a, b in zip(start, trained, strict=True)
    ), "training steps change no weight"


@_check(_has_default_update)
def _check_train_step_equals_default(case: Case) -> None:
    """`train_step` changes weights and logs as Keras's default one, with and without weights."""
    for weighted in (False, True):
        results: list[tuple[list[np.ndarray], dict[str, float]]] = []
        for default in (False, True):
            learner = _compiled(case)
            logs: dict[str, Any] = {}
            for seed in (1, 2):
                inputs, query_y = _episodes(case, seed=seed)
                data: Any = (inputs, query_y)
                if weighted:
                    rng = np.random.default_rng(seed)
                    data += (rng.uniform(size=query_y.shape[:2]).astype(keras.config.floatx()),)
                data = keras.tree.map_structure(tf.constant, data)
                step = keras.Model.train_step if default else type(learner).train_step
                logs = step(learner, data)
            results.append((_weights(learner), {k: float(v) for k, v in logs.items()}))
        (ours, our_logs), (expected, expected_logs) = results
        what = f"{'with' if weighted else 'without'} sample weights"
        _equal_weights(learner, ours, expected, what)
        assert set(our_logs) == set(expected_logs), (
            f"logs {what} are {sorted(our_logs)}, not {sorted(expected_logs)}"
        )
        for name, value in expected_logs.items():
            _equal(our_logs[name], value, f"log {name!r} {what}")


# === Tasks ===


@_check()
def _check_task_order(case: Case) -> None:
    """Permuted tasks permute the predictions, and leave a training step as it is."""
    episodes, order = _episodes(case), np.roll(np.arange(N_TASKS), 1)
    permuted = _take_tasks(episodes, order)
    learner = _compiled(case)
    _equal(
        _predictions(learner, permuted[0]),
        _predictions(learner, episodes[0])[order],
        "predictions depend on the order of the tasks",
    )
    _equal_weights(
        learner,
        _train(learner, permuted),
        _train(_compiled(case), episodes),
        "training depends on the order of the tasks",
    )


@_check()
def _check_meta_batch_size(case: Case) -> None:
    """Tasks do not affect each other; a step on many is the mean of the steps on each alone.

    The step is not compared where the loss is a sum, which counts regularisers but once.
    """
    episodes, learner = _episodes(case), _compiled(case)
    together = _predictions(learner, episodes[0])
    start, iterations = _state(learner), learner.optimizer.iterations
    alone = []

    def restore() -> None:
        for variable, value in [*start, (iterations, 0)]:
            variable.assign(value)

    for t in range(N_TASKS):
        task = _take_tasks(episodes, [t])
        _equal(
            _predictions(learner, task[0])[0],
            together[t],
            f"task {t} is predicted otherwise beside other tasks",
        )
        alone.append(_train(learner, task))
        restore()
    if _is_sum(learner.loss):
        return
    floating = [np.issubdtype(v.numpy().dtype, np.floating) for v in learner.weights]
    mean = [
        np.mean(values, axis=0) if is_floating else values[0]
        for is_floating, *values in zip(floating, *alone, strict=True)
    ]
    trained = _train(learner, episodes)
    for variable, is_floating, a, b in zip(learner.weights, floating, trained, mean, strict=True):
        if is_floating:
            _equal(a, b, f"a step on all tasks is not the mean of single ones: {variable.path}")


# === Queries and support set ===


@_check()
def _check_query_order(case: Case) -> None:
    """Permuted queries permute the predictions."""
    learner, inputs = _new(case), _episodes(case)[0]
    order = np.random.default_rng(0).permutation(inputs["query_x"].shape[1])
    _equal(
        _predictions(learner, {**inputs, "query_x": inputs["query_x"][:, order]}),
        _predictions(learner, inputs)[:, order],
        "predictions depend on the order of the queries",
    )


@_check(lambda case, learner: not _is_transductive(case, learner))
def _check_other_queries(case: Case) -> None:
    """A query is predicted the same alone and among many."""
    learner, inputs = _new(case), _episodes(case)[0]
    query_x = np.concatenate([inputs["query_x"], _episodes(case, seed=2)[0]["query_x"]], axis=1)
    together = _predictions(learner, {**inputs, "query_x": query_x})
    for q in range(2):
        alone = _predictions(learner, {**inputs, "query_x": query_x[:, q : q + 1]})
        _equal(alone[:, 0], together[:, q], f"query {q} depends on the queries beside it")


@_check(lambda case, learner: not case.support_order_matters)
def _check_support_order(case: Case) -> None:
    """The order of the support set changes neither predictions nor a training step."""
    inputs, query_y = _episodes(case)
    order = np.random.default_rng(0).permutation(inputs["support_x"].shape[1])
    permuted = {**inputs, **{k: inputs[k][:, order] for k in ("support_x", "support_y")}}
    learner = _compiled(case)
    _equal(
        _predictions(learner, permuted),
        _predictions(learner, inputs),
        "predictions depend on the order of the support set",
    )
    _equal_weights(
        learner,
        _train(learner, (permuted, query_y)),
        _train(_compiled(case), (inputs, query_y)),
        "training depends on the order of the support set",
    )


@_check(lambda case, learner: case.n_way is not None)
def _check_label_permutation(case: Case) -> None:
    """Permuted support labels (and output units, where there are such) permute the logits."""
    assert case.n_way is not None, "labels are those of classification"
    learner, inputs = _new(case), _episodes(case)[0]
    expected = _predictions(learner, inputs)
    # A cycle, for an exchange of two would be its own inverse.
    order = np.roll(np.arange(case.n_way), 1)
    if case.permute_outputs is not None:
        case.permute_outputs(learner, [int(i) for i in order])
    relabelled = {**inputs, "support_y": np.argsort(order)[inputs["support_y"]]}
    _equal(
        _predictions(learner, relabelled),
        expected[..., order],
        "logits are not permuted with the labels",
    )


@_check()
def _check_masking(case: Case) -> None:
    """Masked padding changes neither the predictions of real queries nor a training step."""
    inputs, query_y = _episodes(case)
    expected = _predictions(_compiled(case), inputs)
    trained = _train(_compiled(case), (inputs, query_y))
    for where in ("at the end",) + (() if case.support_order_matters else ("in between",)):
        padded, padded_y, real = _padded(case, inputs, query_y, interleaved=where == "in between")
        learner = _compiled(case)
        predictions = np.take_along_axis(_predictions(learner, padded), real[..., None], axis=1)
        _equal(predictions, expected, f"padding {where} changes predictions")
        # A mean over the meta-batch counts the padded queries: this makes up for it.
        scale = padded_y.shape[1] / query_y.shape[1]
        weight = padded["query_mask"] * (1 if _is_sum(learner.loss) else scale)
        _equal_weights(
            learner,
            _train(learner, (padded, padded_y, weight.astype(keras.config.floatx()))),
            trained,
            f"padding {where} changes training",
        )


def _padded(
    case: Case, inputs: dict[str, np.ndarray], query_y: np.ndarray, interleaved: bool
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Episodes padded with garbage and labels 0; also the places `[T, Q]` of the real queries."""
    rng = np.random.default_rng(0)

    def places(n: int, padding: int) -> np.ndarray:
        if not interleaved:
            return np.tile(np.arange(n), (N_TASKS, 1))
        # In each task elsewhere, but nowhere in the first row.
        rows = [rng.choice(n + padding - 1, n, replace=False) for _ in range(N_TASKS)]
        return 1 + np.sort(rows, axis=1)

    def put(values: np.ndarray, rows: np.ndarray, padding: int, garbage: float) -> np.ndarray:
        shape = (N_TASKS, values.shape[1] + padding, *values.shape[2:])
        result = (garbage * (1 + rng.uniform(size=shape))).astype(values.dtype)
        result[np.arange(N_TASKS)[:, None], rows] = values
        return result

    def mask(rows: np.ndarray, padding: int) -> np.ndarray:
        return put(np.ones(rows.shape, keras.config.floatx()), rows, padding, garbage=0)

    support = places(inputs["support_x"].shape[1], SUPPORT_PADDING)
    query = places(inputs["query_x"].shape[1], QUERY_PADDING)
    padded = {
        "support_x": put(inputs["support_x"], support, SUPPORT_PADDING, garbage=9),
        "support_y": put(inputs["support_y"], support, SUPPORT_PADDING, garbage=0),
        "query_x": put(inputs["query_x"], query, QUERY_PADDING, garbage=-7),
        "support_mask": mask(support, SUPPORT_PADDING),
        "query_mask": mask(query, QUERY_PADDING),
    }
    return padded, put(query_y, query, QUERY_PADDING, garbage=0), query


# === Variables and files ===


@_check()
def _check_call_changes_nothing(case: Case) -> None:
    """Outside of training no variable changes: in call, predict, evaluate and adapt."""
    learner = _compiled(case)
    inputs, query_y = _episodes(case)
    support_x, support_y = inputs["support_x"][0], inputs["support_y"][0]
    before = _state(learner)
    for name, use in (
        ("call", lambda: learner(inputs, training=False)),
        ("predict", lambda: learner.predict(inputs, verbose=0)),
        ("evaluate", lambda: learner.evaluate(inputs, query_y, verbose=0)),
        ("adapt", lambda: learner.adapt(support_x, support_y)(inputs["query_x"][0])),
    ):
        use()
        for variable, value in before:
            assert np.array_equal(variable.numpy(), value), f"{name} changes {variable.path}"


@_check()
def _check_keras_round_trip(case: Case) -> None:
    """A learner from a `.keras` file predicts and trains on as the one that was saved."""
    episodes = _episodes(case)
    learner = _compiled(case)
    _train(learner, episodes)
    loaded = _reloaded(learner)
    assert type(loaded) is type(learner), f"it was loaded as a {type(loaded).__name__}"
    expected = _predictions(learner, episodes[0])
    _equal(_predictions(loaded, episodes[0]), expected, "the loaded learner predicts otherwise")
    # Files do not keep it, and both must run alike.
    loaded.run_eagerly = True
    _equal_weights(
        learner,
        _train(loaded, episodes),
        _train(learner, episodes),
        "the loaded learner trains on otherwise",
    )


@_check()
def _check_adapted_model(case: Case) -> None:
    """`adapt` gives a model that predicts as call does, also from its file, and stays as it is."""
    episodes, learner = _episodes(case), _compiled(case)
    expected = _predictions(learner, episodes[0])[0]
    support_x, support_y, query_x = (
        episodes[0][name][0] for name in ("support_x", "support_y", "query_x")
    )
    names = [f"class {c}" for c in range(case.n_way)] if case.n_way else None
    adapted = learner.adapt(support_x, support_y, names)
    assert isinstance(adapted, keras.Model), f"adapt returns a {type(adapted).__name__}"
    assert adapted.class_names == names, f"its class_names are {adapted.class_names}, not {names}"

    def predict(model: keras.Model, x: np.ndarray) -> np.ndarray:
        return model.predict(x, batch_size=len(x), verbose=0)

    _equal(predict(adapted, query_x), expected, "the adapted model predicts otherwise than call")
    _equal(predict(_reloaded(adapted), query_x), expected, "it predicts otherwise from its file")
    if not _is_transductive(case, learner):
        rng = np.random.default_rng(0)
        others = rng.normal(size=(1000, *case.example_shape)).astype(query_x.dtype)
        among = predict(adapted, np.concatenate([query_x[:1], others]))
        _equal(among[0], expected[0], "a query among a thousand is predicted otherwise")
        _equal(predict(adapted, query_x[:1])[0], expected[0], "a query alone is, too")
    _train(learner, episodes)
    _equal(predict(adapted, query_x), expected, "meta-training on changes the adapted model")


# === Precision ===


@_check()
def _check_float64(case: Case) -> None:
    """All is float64 under that policy, and a training step follows the loss's true gradient.

    The gradient is compared with central differences of the compiled loss along a random
    direction, so that the network must not start on a kink: one-shot batch statistics before a
    ReLU put it on 0. For learners with an outer update of their own, and first-order ones, the
    step's eager result is compared with that in a graph instead.
    """
    with _precision("float64", "float64"):
        episodes = _episodes(case)
        learner = _compiled(case, learning_rate=1.0)
        dtype = learner(episodes[0]).dtype
        assert dtype == tf.float64, f"predictions are {dtype.name}"
        for variable in learner.weights:
            is_floating = tf.as_dtype(variable.dtype).is_floating
            assert not is_floating or variable.dtype == "float64", (
                f"{variable.path} is {variable.dtype}"
            )
        if case.exact_gradient and _has_default_update(case, learner):
            _compare_with_finite_differences(learner, episodes)
        else:
            _compare_eager_with_graph(case, [episodes], rtol=1e-9, atol=1e-11)


def _compare_with_finite_differences(learner: MetaLearner, episodes: Episodes) -> None:
    inputs, query_y = episodes
    start, variables = _state(learner), learner.trainable_variables
    rng = np.random.default_rng(0)
    before = [v.numpy() for v in variables]
    direction = [rng.normal(size=value.shape) for value in before]

    def restore() -> None:
        for variable, value in start:
            variable.assign(value)

    def loss_at(step: float) -> float:
        for variable, value, d in zip(variables, before, direction, strict=True):
            variable.assign(value + step * d)
        predictions = learner(inputs, training=True)
        loss = learner.compute_loss(
            x=inputs, y=tf.constant(query_y), y_pred=predictions, training=True
        )
        # Training moves averages and seeds, too.
        restore()
        return float(loss)

    epsilon = 1e-6
    expected = (loss_at(epsilon) - loss_at(-epsilon)) / (2 * epsilon)
    _train(learner, episodes)
    actual = sum(
        float(np.sum((value - v.numpy()) * d))
        for v, value, d in zip(variables, before, direction, strict=True)
    )
    _equal(actual, expected, "a training step does not follow the gradient of the loss", 1e-5, 1e-8)


@_check()
def _check_mixed_bfloat16(case: Case) -> None:
    """Under `mixed_bfloat16`, `fit` gives finite losses and moves weights, all of them float32."""
    with _precision("float32", "mixed_bfloat16"):
        learner = _new(case)
        learner.compile(keras.optimizers.SGD(0.01), _loss(case, learner))
        data = _dataset(case, n_batches=3, n_tasks=N_TASKS)
        learner(_episodes(case)[0])
        before = _weights(learner)
        losses = learner.fit(data, shuffle=False, verbose=0).history["loss"]
        assert np.isfinite(losses).all(), f"the loss is {losses}"
        moved = zip(before, _weights(learner), strict=True)
        assert any(np.any(a != b) for a, b in moved), "training moves no weight"
        predictions = learner(_episodes(case)[0])
        assert predictions.dtype == tf.float32, f"predictions are {predictions.dtype.name}"
        assert np.isfinite(predictions).all(), "predictions are not finite"
        for variable in learner.weights:
            assert variable.dtype != "bfloat16", f"{variable.path} is bfloat16"


# === Learning ===


@_check()
def _check_learning(case: Case) -> None:
    """Meta-training on tasks that only their support sets tell apart beats chance by far.

    Whoever ignores the support set has an expected accuracy of exactly the chance c in each task:
    1/n_way, for the classes are exchangeable, or 1/2 for the sign of a regression. The accuracies
    a_e of E test tasks are independent and in [0, 1], so that by Hoeffding's inequality

        P(mean(a_e) ≥ c + t) ≤ exp(-2 E t²),

    which is p = 1e-6 at t = √(ln(1/p) / (2 E)). c + t is the bar that must be met. To show that
    the tasks leak nothing, it must not be met where each task's support labels are those of
    another task drawn independently (relabelled at random, or with a random sign), whose
    accuracy is again c. And meta-training must lower the loss on the test tasks.
    """
    learner = _new(case)
    learner.compile(case.optimizer(), _loss(case, learner))
    inputs, query_y = _episodes(case, TEST_TASKS, seed=0, noise=0.1)
    rng = np.random.default_rng(0)
    if case.n_way:
        names = rng.permuted(np.tile(np.arange(case.n_way), (TEST_TASKS, 1)), axis=1)
        unrelated = np.take_along_axis(names, inputs["support_y"], axis=1)
    else:
        unrelated = inputs["support_y"] * rng.choice([-1, 1], size=(TEST_TASKS, 1, 1))
        unrelated = unrelated.astype(inputs["support_y"].dtype)

    def predict(support_y: np.ndarray) -> np.ndarray:
        tasks = {**inputs, "support_y": support_y}
        predictions = learner.predict(tasks, batch_size=TEST_TASKS, verbose=0)
        assert np.isfinite(predictions).all(), "predictions are not finite"
        return predictions

    def loss(predictions: np.ndarray) -> float:
        y, y_pred = tf.constant(query_y), tf.constant(predictions)
        return float(learner.compute_loss(x=inputs, y=y, y_pred=y_pred, training=False))

    def accuracy(predictions: np.ndarray) -> float:
        if case.n_way:
            return float(np.mean(predictions.argmax(axis=-1) == query_y))
        return float(np.mean(np.sign(predictions) == np.sign(query_y)))

    before = loss(predict(inputs["support_y"]))
    data = _dataset(case, case.training_steps, TRAINING_TASKS, noise=0.1)
    learner.fit(data, shuffle=False, verbose=0)
    predictions = predict(inputs["support_y"])
    chance = 1 / (case.n_way or 2)
    bar = chance + math.sqrt(math.log(1 / ERROR_PROBABILITY) / (2 * TEST_TASKS))
    reached = accuracy(predictions)
    assert reached >= bar, (
        f"accuracy {reached:.3f} after {case.training_steps} steps does not tell the learner from "
        f"one that ignores the support set (chance {chance:.3f}, bar {bar:.3f}); a learner that "
        "needs more steps, or another optimizer, says so in its Case"
    )
    after = loss(predictions)
    assert after < before, f"training does not lower the loss: {before:.4f}, then {after:.4f}"
    control = accuracy(predict(unrelated))
    assert control < bar, f"accuracy {control:.3f} with unrelated support labels, bar {bar:.3f}"


def _dataset(case: Case, n_batches: int, n_tasks: int, noise: float = 1.0) -> tf.data.Dataset:
    """Meta-batches of new tasks."""
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec(array.shape, array.dtype), _episodes(case, n_tasks)
    )
    data = tf.data.Dataset.from_generator(
        # From 1, for 0 is the seed of the tasks to test on.
        lambda: (_episodes(case, n_tasks, seed, noise) for seed in range(1, n_batches + 1)),
        output_signature=signature,
    )
    # Without its length, Keras warns that the data ran out.
    return data.apply(tf.data.experimental.assert_cardinality(n_batches))


# === Bad input ===


@_check()
def _check_bad_input(case: Case) -> None:
    """Inputs and support sets that cannot be right raise a ValueError."""
    learner, inputs = _new(case), _episodes(case)[0]
    learner(inputs)
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    for name, use in (
        ("inputs without the axis of tasks", lambda: learner({k: v[0] for k, v in inputs.items()})),
        ("inputs without query_x", lambda: learner({"support_x": x[None], "support_y": y[None]})),
        ("a support set with NaN", lambda: learner.adapt(np.full_like(x, np.nan), y)),
        ("an empty support set", lambda: learner.adapt(x[:0], y[:0])),
        ("a support set with fewer labels than examples", lambda: learner.adapt(x, y[:-1])),
    ):
        try:
            use()
        except ValueError:
            continue
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__} is no ValueError") from error
        raise AssertionError(f"{name}: no error was raised")
