"""Distributions of regression tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfmeta.data.pipeline import EpisodeRandom, Size, check_size, episode_pipeline

# Draws the function x -> y of an episode from the episode's random numbers.
DrawTask = Callable[[EpisodeRandom], Callable[[tf.Tensor], tf.Tensor]]


class TaskDistribution:
    """Regression tasks y = f(x) with f drawn per episode and x uniform.

    Args:
        draw_task: function from `EpisodeRandom` to a function from x to y, float32 `[N, 1]` both.
            Draws f. It may draw up to 46 times.
        low: float. Lower end of the inputs.
        high: float. Upper end of the inputs.
        support_noise: float. Standard deviation of the Gaussian noise on the support targets.
        source: mapping. What the tasks are, for records.
    """

    example_shape = (1,)
    image_format = None

    def __init__(
        self,
        draw_task: DrawTask,
        low: float,
        high: float,
        support_noise: float,
        source: Mapping[str, Any],
    ) -> None:
        self._draw_task, self._low, self._high = draw_task, low, high
        self._support_noise = support_noise
        self.source = dict(source)

    def __repr__(self) -> str:
        return f"<TaskDistribution {self.source}>"

    def episodes(
        self,
        n_shot: Size = 10,
        n_query: Size = 10,
        meta_batch_size: int = 25,
        seed: int = 0,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """Makes an endless data set of meta-batches of tasks, for `fit`.

        Args:
            n_shot: int or (low, high). Support points; a range is inclusive. Defaults to 10.
            n_query: int or (low, high). Query points. Defaults to 10.
            meta_batch_size: int. Tasks per element, T. Defaults to 25.
            seed: int. Seed of the tasks. Defaults to 0.
            start: int. Index of the first task. Defaults to 0.
            shard: (w, W). The share of worker w of W: the indices congruent to w modulo W.
                Defaults to (0, 1): all tasks.

        Returns:
            A data set of `(inputs, query_y)`: `support_x` and `support_y` `[T, n_shot, 1]`,
            `query_x` and `query_y` `[T, n_query, 1]`, float32. If a size is a range, the elements
            are padded and masked as in `ClassDataset.episodes`.

        Raises:
            ValueError: If a size, the seed, the start or the shard is invalid.
        """
        sizes = {"n_shot": check_size("n_shot", n_shot), "n_query": check_size("n_query", n_query)}
        shots, queries = (high for _, high in sizes.values())
        ranged = any(low != high for low, high in sizes.values())

        def describe(random: EpisodeRandom, size: Mapping[str, tf.Tensor]) -> Any:
            f = self._draw_task(random)
            x = random.uniform([shots + queries, 1], self._low, self._high)
            y = f(x)
            noise = self._support_noise * random.normal([shots, 1])
            inputs = {
                "support_x": x[:shots],
                "support_y": y[:shots] + noise,
                "query_x": x[shots:],
            }
            if not ranged:
                return inputs, y[shots:]
            support_mask = tf.cast(tf.range(shots) < size["n_shot"], tf.float32)
            query_mask = tf.cast(tf.range(queries) < size["n_query"], tf.float32)
            return (
                {
                    "support_x": inputs["support_x"] * support_mask[:, None],
                    "support_y": inputs["support_y"] * support_mask[:, None],
                    "query_x": inputs["query_x"] * query_mask[:, None],
                    "support_mask": support_mask,
                    "query_mask": query_mask,
                },
                y[shots:] * query_mask[:, None],
                query_mask,
            )

        return episode_pipeline(
            describe,
            lambda *episode: episode,
            sizes,
            meta_batch_size=meta_batch_size,
            seed=seed,
            start=start,
            shard=shard,
        )
