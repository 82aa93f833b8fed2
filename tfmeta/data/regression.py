"""Distributions of regression tasks: sinusoids and straight lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfmeta.data.pipeline import EpisodeRandom, Size, check_size, episode_pipeline

# From the episode's random numbers and the count of inputs to a function x -> y.
DrawTask = Callable[[EpisodeRandom], Callable[[tf.Tensor], tf.Tensor]]


class TaskDistribution:
    """Regression tasks y = f(x) with f drawn per episode and x uniform.

    Args:
        draw_task: Draws f.
        low: Lower end of the inputs.
        high: Upper end of the inputs.
        support_noise: Standard deviation of the Gaussian noise on the support targets.
        source: What it is, for records.
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
        """An endless data set of meta-batches of tasks, for `fit`.

        Args:
            n_shot: Support points; an integer or an inclusive range (low, high).
            n_query: Query points; likewise.
            meta_batch_size: Tasks per element, T.
            seed: Seed of the tasks.
            start: Index of the first task.
            shard: (w, W): the share of worker w of W, the indices congruent to w.

        Returns:
            A data set of `(inputs, query_y)`: `support_x` and `support_y` `[T, n_shot, 1]`,
            `query_x` and `query_y` `[T, n_query, 1]`, float32. Where a size is a range, padded
            and masked as in `ClassDataset.episodes`.
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


def sinusoid() -> TaskDistribution:
    """y = A·sin(x − φ) with A ~ U(0.1, 5), φ ~ U(0, π), x ~ U(-5, 5).

    Reference:
        Finn et al. (2017), https://arxiv.org/abs/1703.03400, section 5.1.
    """

    def draw_task(random: EpisodeRandom) -> Callable[[tf.Tensor], tf.Tensor]:
        amplitude = random.uniform([], 0.1, 5.0)
        phase = random.uniform([], 0.0, 3.141592653589793)
        return lambda x: amplitude * tf.sin(x - phase)

    return TaskDistribution(draw_task, -5.0, 5.0, 0.0, {"name": "sinusoid"})


def linear() -> TaskDistribution:
    """y = a·x + b with a ~ U(-5, 5), b ~ U(-10, 10), x ~ U(-5, 5).

    The support targets carry Gaussian noise of standard deviation 0.3; the queries' do not.
    """

    def draw_task(random: EpisodeRandom) -> Callable[[tf.Tensor], tf.Tensor]:
        slope = random.uniform([], -5.0, 5.0)
        intercept = random.uniform([], -10.0, 10.0)
        return lambda x: slope * x + intercept

    return TaskDistribution(draw_task, -5.0, 5.0, 0.3, {"name": "linear"})
