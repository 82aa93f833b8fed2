"""Episodes as a pure function of (seed, index), shared by all sources of episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfmeta.threads import n_cores

# A number, or an inclusive range to draw from.
Size = int | tuple[int, int]

# Random numbers are addressed by (seed, index, stream). Each index has this many streams: the first
# are for the episode, the others for the sizes of its meta-batch.
STREAMS = 64
EPISODE_STREAMS = range(48)
SIZE_STREAMS = range(48, STREAMS)

# An attribute of data sets of episodes: the function that `at_step` calls.
RESTART = "_tfmeta_restart"


class EpisodeRandom:
    """The random numbers of one episode, a pure function of (seed, index) and the order of draws.

    Philox is named explicitly because it gives the same integers on every machine and version.

    Args:
        seed: int. The data set's seed.
        index: int64 scalar. The episode's index.
        streams: range. The streams to draw from, one for each draw, within the `STREAMS` of an
            index. Defaults to the 48 of an episode.

    Raises:
        ValueError: When more is drawn than there are streams. Further draws would be those of the
            next episode.
    """

    def __init__(self, seed: int, index: tf.Tensor, streams: range = EPISODE_STREAMS) -> None:
        self._seed, self._index, self._streams = seed, index, streams
        self._n_drawn = 0

    def _next_key(self) -> tf.Tensor:
        if self._n_drawn >= len(self._streams):
            raise ValueError(
                f"An episode may draw random numbers at most {len(self._streams)} times; this is "
                f"draw {self._n_drawn + 1}. Draw one larger tensor instead of several small ones."
            )
        stream = self._streams[self._n_drawn]
        self._n_drawn += 1
        return tf.stack([tf.constant(self._seed, tf.int64), self._index * STREAMS + stream])

    def bits(self, shape: Sequence[int]) -> tf.Tensor:
        """Draws uniform int32 over the full range."""
        return tf.random.stateless_uniform(
            shape, self._next_key(), minval=None, maxval=None, dtype=tf.int32, alg="philox"
        )

    def uniform(self, shape: Sequence[int], low: float, high: float) -> tf.Tensor:
        """Draws uniform float32 in [low, high)."""
        return tf.random.stateless_uniform(shape, self._next_key(), low, high, alg="philox")

    def normal(self, shape: Sequence[int]) -> tf.Tensor:
        """Draws standard normal float32."""
        return tf.random.stateless_normal(shape, self._next_key(), alg="philox")

    def order(self, valid: tf.Tensor) -> tf.Tensor:
        """Draws an order of positions, the valid ones first.

        Args:
            valid: bool `[N]`. Which positions are valid.

        Returns:
            int32 `[N]`. The valid positions in random order, then the others.
        """
        bits = tf.where(valid, self.bits(valid.shape), tf.int32.min)
        return tf.math.top_k(bits, valid.shape[0]).indices


def check_size(name: str, size: Any, minimum: int = 1) -> tuple[int, int]:
    """Checks a size of episodes and makes it a range.

    Args:
        name: str. What messages call it.
        size: int or (low, high). A size, or an inclusive range of sizes.
        minimum: int. The smallest valid size. Defaults to 1.

    Returns:
        (low, high).

    Raises:
        ValueError: If it is neither, or empty, or below the minimum.
    """
    bounds = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(bounds) != 2 or not all(isinstance(b, int) and not isinstance(b, bool) for b in bounds):
        raise ValueError(f"{name} must be an integer or a range (low, high); got {size!r}.")
    low, high = bounds
    if low > high:
        raise ValueError(f"{name} must be a range (low, high) with low ≤ high; got {size!r}.")
    if low < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {size!r}.")
    return low, high


class Restart(NamedTuple):
    """How a data set of episodes begins anew.

    Attributes:
        from_step: function from a number of elements to the data set without these.
        index_of: function from the number of an element, from 0, and of an episode in it to the
            episode's index.
    """

    from_step: Callable[[int], tf.data.Dataset]
    index_of: Callable[[int, int], int | None]


def restartable(restart: Restart) -> tf.data.Dataset:
    """Returns a data set that `at_step` begins anew, without making the elements before.

    Args:
        restart: Restart. How it begins anew.
    """
    data = restart.from_step(0)
    setattr(data, RESTART, restart)
    return data


def at_step(data: tf.data.Dataset, step: int) -> tf.data.Dataset:
    """Returns a data set without its first elements: for episodes, without making these.

    Args:
        data: tf.data.Dataset. What `episodes(...)` returned, or any other data set, whose first
            elements are made and dropped.
        step: int. The number of elements, ≥ 0.
    """
    restart: Restart | None = getattr(data, RESTART, None)
    if not step:
        return data
    if restart is None:
        return data.skip(step)
    from_step, index_of = restart
    return restartable(
        Restart(lambda n: from_step(step + n), lambda n, task: index_of(step + n, task))
    )


def episode_index(data: tf.data.Dataset, step: int, task: int) -> int | None:
    """Returns the index of an episode, by which `start=` finds it; None if it is unknown.

    Args:
        data: tf.data.Dataset. What `episodes(...)` returned, or any other data set.
        step: int. The number of the meta-batch, from 0.
        task: int. The number of the episode in it, from 0.
    """
    restart: Restart | None = getattr(data, RESTART, None)
    return None if restart is None else restart.index_of(step, task)


def episode_pipeline(
    describe: Callable[[EpisodeRandom, Mapping[str, tf.Tensor]], Any],
    fetch: Callable[..., Any],
    sizes: Mapping[str, tuple[int, int]],
    *,
    meta_batch_size: int,
    seed: int,
    start: int,
    shard: tuple[int, int],
) -> tf.data.Dataset:
    """Makes an endless data set of meta-batches.

    Worker w of W takes the indices congruent to w modulo W. Sizes that are ranges are drawn once
    per meta-batch (all workers draw the same), from the index at which the meta-batch starts.

    Args:
        describe: function from an episode's random numbers and sizes to a nest of small tensors.
        fetch: function from `meta_batch_size` stacked descriptions (their parts as arguments) to
            an element of the data set.
        sizes: mapping from str to (low, high). Inclusive ranges of sizes by name.
        meta_batch_size: int. Episodes per meta-batch, > 0.
        seed: int. Any integer of 64 bits.
        start: int. Index of the first episode, ≥ 0.
        shard: (worker, number of workers).

    Returns:
        A prefetching `tf.data.Dataset` of what `fetch` returns.

    Raises:
        ValueError: If one of the last four is invalid, or `describe` draws random numbers more
            often than an episode may.
    """
    if not (isinstance(meta_batch_size, int) and meta_batch_size > 0):
        raise ValueError(f"meta_batch_size must be an integer > 0; got {meta_batch_size!r}.")
    if not (isinstance(start, int) and start >= 0):
        raise ValueError(f"start must be an integer ≥ 0; got {start!r}.")
    if not (isinstance(seed, int) and -(2**63) <= seed < 2**63):
        raise ValueError(f"seed must be an integer of 64 bits; got {seed!r}.")
    is_pair = isinstance(shard, list | tuple) and [type(n) for n in shard] == [int, int]
    if not (is_pair and 0 <= shard[0] < shard[1]):
        raise ValueError(f"shard must be integers (w, W) with 0 ≤ w < W; got {shard!r}.")
    worker, n_workers = shard

    def episode(index: tf.Tensor) -> Any:
        first_of_meta_batch = index - (index - start) % (meta_batch_size * n_workers)
        draw = EpisodeRandom(seed, first_of_meta_batch, SIZE_STREAMS)
        drawn_sizes = {
            name: tf.constant(low)
            if low == high
            else low + draw.bits([]) % tf.constant(high - low + 1)
            for name, (low, high) in sizes.items()
        }
        return describe(EpisodeRandom(seed, index), drawn_sizes)

    first = start + (worker - start) % n_workers
    n_parallel = n_cores()
    options = tf.data.Options()
    # With autotuning, dropping an iterator (as Keras does after each validation) waits until its
    # tuner wakes up. This takes seconds, and longer the longer the iterator has run.
    options.autotune.enabled = False

    def from_step(step: int) -> tf.data.Dataset:
        return (
            tf.data.Dataset.counter(first + step * meta_batch_size * n_workers, n_workers)
            .map(episode, num_parallel_calls=n_parallel)
            .batch(meta_batch_size, drop_remainder=True)
            .map(fetch, num_parallel_calls=n_parallel)
            .prefetch(2)
            .with_options(options)
        )

    def index_of(step: int, task: int) -> int:
        return first + (step * meta_batch_size + task) * n_workers

    return restartable(Restart(from_step, index_of))
