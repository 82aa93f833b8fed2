"""Invariants of the episode pipeline: episodes are a pure function of (seed, index)."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfmeta.data import ClassDataset, TaskDistribution, load
from tfmeta.data.pipeline import (
    EPISODE_STREAMS,
    SIZE_STREAMS,
    STREAMS,
    EpisodeRandom,
    check_size,
    episode_pipeline,
)

DEFAULTS = {"meta_batch_size": 2, "seed": 0, "start": 0, "shard": (0, 1)}
CLASSES = ClassDataset.from_arrays(np.arange(1, 57)[:, None], np.repeat(np.arange(7), 8))
LINEAR = load("linear")


def bare(sizes: Any = None, **options: Any) -> tf.data.Dataset:
    """A pipeline of nothing but random bits and the drawn sizes."""

    def describe(random: EpisodeRandom, size: Any) -> Any:
        return {"bits": random.bits([3]), "more": random.bits([2]), **size}

    return episode_pipeline(describe, lambda episodes: episodes, sizes or {}, **DEFAULTS | options)


SOURCES = {
    "bare": bare,
    "classes": lambda **options: CLASSES.episodes(3, 2, 3, **DEFAULTS | options),
    "linear": lambda **options: LINEAR.episodes(3, 2, **DEFAULTS | options),
}
RANGED = {
    "bare": lambda **options: bare({"a": (1, 5), "b": (2, 2), "c": (0, 3)}, **options),
    "classes": lambda **options: CLASSES.episodes((2, 5), (1, 3), (1, 4), **DEFAULTS | options),
    "linear": lambda **options: LINEAR.episodes((1, 6), (1, 7), **DEFAULTS | options),
}


def bare_and_classes(sources: dict[str, Any]) -> list[Any]:
    """The names of the sources; regression tasks are in the large tier."""
    return [
        pytest.param(name, marks=[pytest.mark.large] if name == "linear" else [])
        for name in sources
    ]


@pytest.fixture(params=bare_and_classes(SOURCES))
def source(request: pytest.FixtureRequest) -> Any:
    return SOURCES[request.param]


@pytest.fixture(
    params=[pytest.param(n, marks=[] if n == "classes" else [pytest.mark.large]) for n in RANGED]
)
def ranged(request: pytest.FixtureRequest) -> Any:
    return RANGED[request.param]


def stream(data: tf.data.Dataset, n_episodes: int) -> list[np.ndarray]:
    """The first episodes, whatever the meta-batches they came in: one array per component."""
    elements, n = [], 0
    for element in data:
        elements.append([t.numpy() for t in tf.nest.flatten(element)])
        n += len(elements[-1][0])
        if n >= n_episodes:
            break
    return [np.concatenate(parts)[:n_episodes] for parts in zip(*elements, strict=True)]


def assert_equal(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def sizes_of(data: tf.data.Dataset, n_meta_batches: int) -> np.ndarray:
    """The sizes "a", "b", "c" of each episode `[meta-batches, episodes, 3]`."""
    elements = data.take(n_meta_batches).as_numpy_iterator()
    return np.array([np.stack([e[name] for name in "abc"], axis=-1) for e in elements])


# === Fixed sizes ===


def test_two_pipelines_give_equal_episodes(source: Any) -> None:
    assert_equal(stream(source(seed=3), 12), stream(source(seed=3), 12))


def test_a_second_iteration_gives_equal_episodes(source: Any) -> None:
    data = source()
    assert_equal(stream(data, 12), stream(data, 12))


@pytest.mark.parametrize("meta_batch_size", [pytest.param(1, marks=pytest.mark.large), 3, 12])
def test_meta_batch_size_does_not_change_episodes(source: Any, meta_batch_size: int) -> None:
    whole = stream(source(meta_batch_size=2), 12)
    assert_equal(stream(source(meta_batch_size=meta_batch_size), 12), whole)


@pytest.mark.parametrize("start", [pytest.param(1, marks=pytest.mark.large), 6])
def test_start_skips_that_many_episodes(source: Any, start: int) -> None:
    rest = [part[start:] for part in stream(source(), 12)]
    assert_equal(stream(source(start=start), 12 - start), rest)


@pytest.mark.parametrize(
    ("n_workers", "start"),
    [*(pytest.param(n, 0, marks=pytest.mark.large) for n in (2, 3)), (3, 4)],
)
def test_shards_interleave_to_the_whole(source: Any, n_workers: int, start: int) -> None:
    whole = stream(source(), start + 12)
    for worker in range(n_workers):
        share = [i for i in range(start, start + 12) if i % n_workers == worker]
        data = source(shard=(worker, n_workers), start=start)
        assert_equal(stream(data, len(share)), [part[share] for part in whole])


def test_different_seeds_give_different_episodes(source: Any) -> None:
    streams = [stream(source(seed=seed), 8) for seed in (0, 1, -1, 2**40)]
    for i, one in enumerate(streams):
        for other in streams[:i]:
            for a, b in zip(one, other, strict=True):
                assert not np.array_equal(a, b)


def test_no_random_number_is_used_twice() -> None:
    # Were streams or indices to overlap, some of these 2 * 4,000 triples of 32-bit numbers would
    # be equal; by chance two of them are with a probability of 1e-21.
    bits, more = (part.reshape(-1) for part in stream(bare(meta_batch_size=1000), 4000))
    triples = np.lib.stride_tricks.sliding_window_view(np.concatenate([bits, more]), 2)
    assert len(np.unique(triples, axis=0)) == len(triples)


def test_shapes_are_static(source: Any) -> None:
    for spec in tf.nest.flatten(source(meta_batch_size=5).element_spec):
        assert spec.shape.is_fully_defined()
        assert spec.shape[0] == 5


# === How much an episode may draw ===


def drawing(n_draws: int) -> tf.data.Dataset:
    def describe(random: EpisodeRandom, size: Any) -> Any:
        return tf.stack([random.bits([]) for _ in range(n_draws)])

    return episode_pipeline(describe, lambda bits: bits, {}, **DEFAULTS)


@pytest.mark.large
def test_an_episode_that_draws_too_often_is_refused_when_it_is_traced() -> None:
    n_draws = len(EPISODE_STREAMS)
    bits = np.concatenate(stream(drawing(n_draws), 100)[0])
    # By chance, two of 4,800 numbers of 32 bits are equal with a probability of 0.3 %; the seed is
    # fixed.
    assert len(np.unique(bits)) == 100 * n_draws
    with pytest.raises(ValueError, match=rf"at most {n_draws} times; this is draw {n_draws + 1}"):
        drawing(n_draws + 1)


def test_a_task_that_draws_too_often_is_refused() -> None:
    def draw_task(random: EpisodeRandom) -> Any:
        return lambda x: x * sum(random.normal([]) for _ in range(60))

    tasks = TaskDistribution(draw_task, -1, 1, 0.1, {"name": "greedy"})
    with pytest.raises(ValueError, match=r"at most 48 times; this is draw 49\. Draw one larger"):
        tasks.episodes(1, 1)


def test_sizes_and_episodes_draw_from_different_streams() -> None:
    assert set(EPISODE_STREAMS) | set(SIZE_STREAMS) == set(range(STREAMS))
    assert not set(EPISODE_STREAMS) & set(SIZE_STREAMS)


# === Sizes drawn from ranges ===


def test_ranged_pipelines_give_equal_episodes(ranged: Any) -> None:
    assert_equal(stream(ranged(seed=3), 12), stream(ranged(seed=3), 12))


@pytest.mark.parametrize("n_workers", [pytest.param(1, marks=pytest.mark.large), 3])
def test_start_at_a_meta_batch_gives_the_same_continuation(ranged: Any, n_workers: int) -> None:
    for worker in {0, n_workers - 1}:
        shard = (worker, n_workers)
        whole = stream(ranged(shard=shard), 12)
        resumed = ranged(shard=shard, start=3 * 2 * n_workers)
        assert_equal(stream(resumed, 6), [part[6:] for part in whole])


@pytest.mark.parametrize("start", [0, 5])
def test_all_shards_draw_the_same_sizes(start: int) -> None:
    data = [RANGED["bare"](shard=(w, 3), start=start) for w in range(3)]
    sizes = np.stack([sizes_of(d, 20) for d in data])
    # Neither worker (axis 0) nor episode (axis 2) matters, but the meta-batch does.
    assert (sizes == sizes[:1, :, :1]).all()
    assert len(np.unique(sizes[0, :, 0], axis=0)) > 5


def test_drawn_sizes_are_the_same_for_shards_and_whole() -> None:
    whole = sizes_of(RANGED["bare"](meta_batch_size=6), 20)[:, 0]
    shard = sizes_of(RANGED["bare"](meta_batch_size=3, shard=(1, 2)), 20)[:, 0]
    np.testing.assert_array_equal(whole, shard)


def test_drawn_sizes_are_uniform_over_the_range() -> None:
    sizes = sizes_of(RANGED["bare"](meta_batch_size=1), 2000).reshape(-1, 3)
    for column, low, high in zip(sizes.T, (1, 2, 0), (5, 2, 3), strict=True):
        values, counts = np.unique(column, return_counts=True)
        assert values.tolist() == list(range(low, high + 1))
        # Five standard deviations of a binomial count; the seed is fixed, so this cannot flake.
        p = 1 / len(values)
        assert (np.abs(counts - 2000 * p) <= 5 * np.sqrt(2000 * p * (1 - p))).all()


# === Errors ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -1}, r"start must be an integer ≥ 0; got -1"),
        ({"start": 1.5}, r"start must be an integer ≥ 0; got 1\.5"),
        ({"meta_batch_size": 0}, r"meta_batch_size must be an integer > 0; got 0"),
        ({"meta_batch_size": 2.0}, r"meta_batch_size must be an integer > 0; got 2\.0"),
        ({"shard": (2, 2)}, r"shard must be .*0 ≤ w < W; got \(2, 2\)"),
        ({"shard": (-1, 2)}, r"shard must be .*0 ≤ w < W; got \(-1, 2\)"),
        ({"shard": (0, 0)}, r"shard must be .*0 ≤ w < W; got \(0, 0\)"),
        ({"shard": (0.5, 2)}, r"shard must be .*0 ≤ w < W; got \(0\.5, 2\)"),
        ({"shard": (0, 1, 2)}, r"shard must be .*0 ≤ w < W; got \(0, 1, 2\)"),
        ({"shard": 1}, r"shard must be .*0 ≤ w < W; got 1"),
        ({"seed": 0.5}, r"seed must be an integer.*; got 0\.5"),
        ({"seed": 2**63}, r"seed must be an integer.*; got 9223372036854775808"),
    ],
)
def test_bad_options_are_told(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(**options)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((5, 3), r"n_shot must be a range \(low, high\) with low ≤ high; got \(5, 3\)"),
        (0, r"n_shot must be at least 1; got 0"),
        ((0, 3), r"n_shot must be at least 1; got \(0, 3\)"),
        (-2, r"n_shot must be at least 1; got -2"),
        (1.5, r"n_shot must be an integer or a range \(low, high\); got 1\.5"),
        (1.0, r"n_shot must be an integer or a range \(low, high\); got 1\.0"),
        ((1, 2.5), r"n_shot must be an integer or a range \(low, high\); got \(1, 2\.5\)"),
        ((1, 2, 3), r"n_shot must be an integer or a range \(low, high\); got \(1, 2, 3\)"),
        (True, r"n_shot must be an integer or a range \(low, high\); got True"),
        (None, r"n_shot must be an integer or a range \(low, high\); got None"),
    ],
)
def test_bad_sizes_are_told(size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_size("n_shot", size)
    for data in (CLASSES, LINEAR):
        with pytest.raises(ValueError, match=message):
            data.episodes(n_shot=size)


def test_sizes_are_integers_and_inclusive_ranges() -> None:
    assert check_size("n", 3) == (3, 3)
    assert check_size("n", (2, 4)) == check_size("n", [2, 4]) == (2, 4)
