"""Episodes as a pure function of (seed, index): what all sources of episodes share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

# A number, or an inclusive range to draw from.
Size = int | tuple[int, int]

# Random numbers are addressed by (seed, index, stream); an index has this many streams.
STREAMS = 64
SIZE_STREAM = 48


class EpisodeRandom:
    """The random numbers of one episode, a pure function of (seed, index) and the order of calls.

    Philox is named explicitly: it gives the same integers on every machine and version.

    Args:
        seed: The data set's seed.
        index: Scalar int64, the episode's index.
        stream: The first stream to draw from.
    """

    def __init__(self, seed: int, index: tf.Tensor, stream: int = 0) -> None:
        self._seed, self._index, self._stream = seed, index, stream

    def _next(self) -> tf.Tensor:
        key = tf.stack([tf.constant(self._seed, tf.int64), self._index * STREAMS + self._stream])
        self._stream += 1
        return key

    def bits(self, shape: Sequence[int]) -> tf.Tensor:
        """Uniform int32 over the full range."""
        return tf.random.stateless_uniform(
            shape, self._next(), minval=None, maxval=None, dtype=tf.int32, alg="philox"
        )

    def uniform(self, shape: Sequence[int], low: float, high: float) -> tf.Tensor:
        """Uniform float32 in [low, high)."""
        return tf.random.stateless_uniform(shape, self._next(), low, high, alg="philox")

    def normal(self, shape: Sequence[int]) -> tf.Tensor:
        """Standard normal float32."""
        return tf.random.stateless_normal(shape, self._next(), alg="philox")

    def order(self, valid: tf.Tensor) -> tf.Tensor:
        """A random order of the positions `[N]`: the valid ones first, in random order."""
        bits = tf.where(valid, self.bits(valid.shape), tf.int32.min)
        return tf.math.top_k(bits, valid.shape[0]).indices


def check_size(name: str, size: Any, minimum: int = 1) -> tuple[int, int]:
    """An integer, or an inclusive (low, high), as (low, high).

    Raises:
        ValueError: If it is neither, empty, or below the minimum.
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
    """An endless data set of meta-batches.

    Worker w of W takes the indices congruent to w. Sizes that are ranges are drawn once per
    meta-batch (the same for all workers), from the index at which it starts.

    Args:
        describe: From an episode's random numbers and sizes to a nesting of small tensors.
        fetch: From `meta_batch_size` stacked descriptions (their parts as arguments) to what the
            data set yields.
        sizes: Inclusive (low, high) by name.
        meta_batch_size: Episodes per meta-batch, > 0.
        seed: Any integer of 64 bits.
        start: Index of the first episode, ≥ 0.
        shard: (worker, number of workers).

    Returns:
        A prefetching `tf.data.Dataset` of what `fetch` returns.

    Raises:
        ValueError: If one of the last four is not as above.
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
        first = index - (index - start) % (meta_batch_size * n_workers)
        draw = EpisodeRandom(seed, first, SIZE_STREAM)
        drawn = {
            name: tf.constant(low)
            if low == high
            else low + draw.bits([]) % tf.constant(high - low + 1)
            for name, (low, high) in sizes.items()
        }
        return describe(EpisodeRandom(seed, index), drawn)

    first = start + (worker - start) % n_workers
    n_parallel = os.cpu_count() or 1
    options = tf.data.Options()
    # With autotuning, dropping an iterator (as Keras does after each validation) waits until its
    # tuner wakes up: for seconds, and the longer it ran, the longer.
    options.autotune.enabled = False
    return (
        tf.data.Dataset.counter(first, n_workers)
        .map(episode, num_parallel_calls=n_parallel)
        .batch(meta_batch_size, drop_remainder=True)
        .map(fetch, num_parallel_calls=n_parallel)
        .prefetch(2)
        .with_options(options)
    )
