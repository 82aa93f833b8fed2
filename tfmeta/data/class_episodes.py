"""Drawing of classification episodes: which classes, and which rows of their examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfmeta.data.pipeline import EpisodeRandom

# The support set or the query set of one episode: `rows` int64, `y` int32 and `mask` float32, all
# `[ways · examples per class]`.
Part = dict[str, tf.Tensor]


class EpisodeDescriber:
    """Draws the rows of an episode's support set and query set, without reading an example.

    Args:
        rows: sequence of int arrays. The rows of each class.
        ways: int. The most classes of an episode.
        shots: int. The most support examples per class.
        queries: int. The most queries per class.
    """

    def __init__(self, rows: Sequence[np.ndarray], ways: int, shots: int, queries: int) -> None:
        self._ways, self._shots, self._queries = ways, shots, queries
        counts = np.array([len(r) for r in rows])
        self._n_classes, self._largest = len(rows), int(counts.max())
        with tf.device("CPU"):
            self._class_sizes = tf.constant(counts, tf.int32)
            self._class_starts = tf.constant(np.cumsum(counts) - counts, tf.int64)
            self._rows = tf.constant(np.concatenate(rows))

    def describe(self, random: EpisodeRandom, size: Mapping[str, tf.Tensor]) -> tuple[Part, Part]:
        """Draws one episode.

        Args:
            random: EpisodeRandom. The episode's random numbers.
            size: mapping from "n_way", "n_shot", "n_query" to int32 scalars. The sizes of this
                episode, at most those of the constructor; the rest is masked.

        Returns:
            The support set and the query set.
        """
        classes = tf.math.top_k(random.bits([self._n_classes]), self._ways).indices
        rows = self._draw_rows(random, classes)
        is_in_way = tf.range(self._ways) < size["n_way"]
        support_rows, query_rows = rows[:, : self._shots], rows[:, self._shots :]
        return (
            self._shuffled_part(random, support_rows, is_in_way, size["n_shot"]),
            self._shuffled_part(random, query_rows, is_in_way, size["n_query"]),
        )

    def _draw_rows(self, random: EpisodeRandom, classes: tf.Tensor) -> tf.Tensor:
        """Draws different rows of each class `[ways, shots + queries]`."""
        bits = random.bits([self._ways, self._largest])
        exists = tf.range(self._largest) < tf.gather(self._class_sizes, classes)[:, None]
        n_examples = self._shots + self._queries
        picks = tf.math.top_k(tf.where(exists, bits, tf.int32.min), n_examples).indices
        positions = tf.gather(self._class_starts, classes)[:, None] + tf.cast(picks, tf.int64)
        return tf.gather(self._rows, positions)

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
