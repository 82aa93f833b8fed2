"""Tasks for the checks: seeded, tiny, and told apart by nothing but their support sets."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.testing.case import Case

N_TASKS = 2
SUPPORT_PADDING, QUERY_PADDING = 3, 2

Inputs = dict[str, np.ndarray]
Episodes = tuple[Inputs, np.ndarray]


def make_episodes(
    case: Case, n_tasks: int = N_TASKS, seed: int = 1, noise: float = 1.0
) -> Episodes:
    """Draws tasks that only the labels of the support set can tell apart.

    Classification: each task has random class centres, and examples are a centre plus noise. The
    centres are exchangeable: without the support labels, each class is as likely as any other.
    Regression: `y = a · mean(x)` with `x` in [1, 2] and `a` drawn from {-1, 1} for each task.

    Examples are in random order, so positions reveal nothing either.

    Args:
        case: Case. It gives the sizes of a task.
        n_tasks: int. Tasks in the meta-batch. Defaults to 2.
        seed: int. Equal seeds give equal tasks. Defaults to 1.
        noise: float. Standard deviation of examples around their class centre. Defaults to 1.

    Returns:
        The learner's inputs and the queries' labels, in Keras's default float type.
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


def take_tasks(episodes: Episodes, tasks: Any) -> Episodes:
    """Selects tasks, by indices into the first axis."""
    inputs, query_y = episodes
    return {k: v[tasks] for k, v in inputs.items()}, query_y[tasks]


def pad(episodes: Episodes, interleaved: bool) -> tuple[Inputs, np.ndarray, np.ndarray]:
    """Pads tasks with garbage, and adds masks that say so.

    Args:
        episodes: Episodes. Tasks of `make_episodes`.
        interleaved: bool. Whether padding stands between the real examples, in different places
            of each task, and always in the first row. Otherwise it stands at the end.

    Returns:
        The padded inputs with masks, the padded labels of the queries (padding has label 0), and
        the positions `[T, Q]` of the real queries.
    """
    inputs, query_y = episodes
    n_tasks = len(query_y)
    rng = np.random.default_rng(0)

    def positions(n: int, padding: int) -> np.ndarray:
        if not interleaved:
            return np.tile(np.arange(n), (n_tasks, 1))
        rows = [rng.choice(n + padding - 1, n, replace=False) for _ in range(n_tasks)]
        return 1 + np.sort(rows, axis=1)

    def put(values: np.ndarray, rows: np.ndarray, padding: int, garbage: float) -> np.ndarray:
        shape = (n_tasks, values.shape[1] + padding, *values.shape[2:])
        result = (garbage * (1 + rng.uniform(size=shape))).astype(values.dtype)
        result[np.arange(n_tasks)[:, None], rows] = values
        return result

    def mask(rows: np.ndarray, padding: int) -> np.ndarray:
        return put(np.ones(rows.shape, keras.config.floatx()), rows, padding, garbage=0)

    support = positions(inputs["support_x"].shape[1], SUPPORT_PADDING)
    query = positions(inputs["query_x"].shape[1], QUERY_PADDING)
    padded = {
        "support_x": put(inputs["support_x"], support, SUPPORT_PADDING, garbage=9),
        "support_y": put(inputs["support_y"], support, SUPPORT_PADDING, garbage=0),
        "query_x": put(inputs["query_x"], query, QUERY_PADDING, garbage=-7),
        "support_mask": mask(support, SUPPORT_PADDING),
        "query_mask": mask(query, QUERY_PADDING),
    }
    return padded, put(query_y, query, QUERY_PADDING, garbage=0), query


def make_dataset(case: Case, n_batches: int, n_tasks: int, noise: float = 1.0) -> tf.data.Dataset:
    """Makes meta-batches, each of new tasks.

    Args:
        case: Case. It gives the sizes of a task.
        n_batches: int. Meta-batches in the dataset.
        n_tasks: int. Tasks in each of them.
        noise: float. See `make_episodes`. Defaults to 1.

    Returns:
        A dataset of (inputs, labels of the queries).
    """
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec(array.shape, array.dtype), make_episodes(case, n_tasks)
    )
    data = tf.data.Dataset.from_generator(
        # Seeds start at 1 because the test tasks of the check `learning` have seed 0.
        lambda: (make_episodes(case, n_tasks, seed, noise) for seed in range(1, n_batches + 1)),
        output_signature=signature,
    )
    # Without its length, Keras warns that the data ran out.
    return data.apply(tf.data.experimental.assert_cardinality(n_batches))
