"""Draws classification episodes: their classes, and the rows of their examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfmeta.data.episode_parts import EpisodePart
from tfmeta.data.pipeline import EpisodeRandom

# The support set, the query set or the unlabelled examples of one episode: `rows` int64, `y` int32
# and `mask` float32, all `[ways · examples per class]`.
Part = dict[str, tf.Tensor]


class EpisodeDescriber:
    """Draws the rows of an episode's support set and query set, without reading an example.

    Args:
        ways: int. The most classes of an episode.
        shots: int. The most support examples per class.
        queries: int. The most queries per class.
        parts: sequence of EpisodePart. From which rows of each class its examples are drawn, in the
            order support set, queries, unlabelled examples.
    """

    def __init__(self, ways: int, shots: int, queries: int, parts: Sequence[EpisodePart]) -> None:
        self._ways, self._shots, self._labelled = ways, shots, shots + queries
        pools = [_Pool(part.rows, part.n_examples) for part in parts]
        self._n_unlabelled = sum(part.n_examples for part in parts) - self._labelled
        # Drawn last, so that the others are those of the episode without it.
        is_apart = self._n_unlabelled == parts[-1].n_examples
        self._unlabelled = pools.pop() if is_apart else None
        self._pools = pools
        self._n_classes = len(parts[0].rows)

    def describe(self, random: EpisodeRandom, size: Mapping[str, tf.Tensor]) -> tuple[Part, ...]:
        """Draws one episode.

        Args:
            random: EpisodeRandom. The episode's random numbers.
            size: mapping from "n_way", "n_shot", "n_query" to int32 scalars. The sizes of this
                episode, at most those of the constructor; the rest is masked.

        Returns:
            The support set and the query set, and what is unlabelled if there is any.
        """
        classes = tf.math.top_k(random.bits([self._n_classes]), self._ways).indices
        rows = tf.concat([pool.draw(random, classes) for pool in self._pools], axis=1)
        is_in_way = tf.range(self._ways) < size["n_way"]
        support, query = rows[:, : self._shots], rows[:, self._shots : self._labelled]
        parts = (
            self._shuffled_part(random, support, is_in_way, size["n_shot"]),
            self._shuffled_part(random, query, is_in_way, size["n_query"]),
        )
        if not self._n_unlabelled:
            return parts
        if self._unlabelled is None:
            others = rows[:, self._labelled :]
        else:
            others = self._unlabelled.draw(random, classes)
        n_unlabelled = tf.constant(self._n_unlabelled)
        return *parts, self._shuffled_part(random, others, is_in_way, n_unlabelled)

    def _shuffled_part(
        self, random: EpisodeRandom, rows: tf.Tensor, is_in_way: tf.Tensor, n_used: tf.Tensor
    ) -> Part:
        """Puts the rows `[ways, examples per class]` of a part in random order, padding last."""
        per_class = rows.shape[1]
        is_used = tf.reshape(is_in_way[:, None] & (tf.range(per_class) < n_used), [-1])
        order = random.order(is_used)
        mask = tf.gather(is_used, order)
        labels = tf.repeat(tf.range(self._ways), per_class)
        return {
            "rows": tf.gather(tf.reshape(rows, [-1]), order),
            "y": tf.where(mask, tf.gather(labels, order), 0),
            "mask": tf.cast(mask, tf.float32),
        }


class _Pool:
    """The rows of each class, from which some are drawn."""

    def __init__(self, rows: Sequence[np.ndarray], n_drawn: int) -> None:
        counts = np.array([len(r) for r in rows])
        self._largest, self._n_drawn = int(counts.max()), n_drawn
        with tf.device("CPU"):
            self._class_sizes = tf.constant(counts, tf.int32)
            self._class_starts = tf.constant(np.cumsum(counts) - counts, tf.int64)
            self._rows = tf.constant(np.concatenate(rows))

    def draw(self, random: EpisodeRandom, classes: tf.Tensor) -> tf.Tensor:
        """Draws different rows of each class `[ways, n_drawn]`."""
        bits = random.bits([classes.shape[0], self._largest])
        exists = tf.range(self._largest) < tf.gather(self._class_sizes, classes)[:, None]
        picks = tf.math.top_k(tf.where(exists, bits, tf.int32.min), self._n_drawn).indices
        positions = tf.gather(self._class_starts, classes)[:, None] + tf.cast(picks, tf.int64)
        return tf.gather(self._rows, positions)
