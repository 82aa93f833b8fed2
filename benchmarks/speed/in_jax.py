"""The work done by JAX: `vmap` and `lax.map` over tasks, convolutions as patches and products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import work as works
from jax import lax
from work import Work
from worker import serve, timed


def convolution(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """As `padding="same"`. XLA's own is several times slower in all of this work, on a CPU."""
    places = [-(-n // stride) for n in x.shape[1:3]]
    total = [max((p - 1) * stride + 3 - n, 0) for p, n in zip(places, x.shape[1:3], strict=True)]
    x = jnp.pad(x, [(0, 0), *[(t // 2, t - t // 2) for t in total], (0, 0)])
    ends = [(p - 1) * stride + 1 for p in places]
    patches = jnp.concatenate(
        [
            x[:, i : i + ends[0] : stride, j : j + ends[1] : stride]
            for i in range(3)
            for j in range(3)
        ],
        axis=-1,
    )
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def conv4(work: Work, weights: list[jax.Array], x: jax.Array) -> jax.Array:
    for block in range(4):
        kernel, beta = weights[2 * block : 2 * block + 2]
        x = convolution(x, kernel, 1 if work.max_pool else 2)
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = jax.nn.relu((x - mean) * lax.rsqrt(variance + 1e-3) + beta)
        if work.max_pool:
            n, height, width, channels = x.shape
            x = x[:, : height // 2 * 2, : width // 2 * 2]
            x = x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))
    x = x.reshape(len(x), -1) if work.max_pool else x.mean((1, 2))
    return x @ weights[8] + weights[9]


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def adapted(
    work: Work,
    weights: list[jax.Array],
    x: jax.Array,
    y: jax.Array,
) -> list[jax.Array]:
    fast, rates = list(weights[:10]), weights[10:]
    places = [0, 2, 4, 6, 8, 9]

    def loss(values: list[jax.Array]) -> jax.Array:
        whole = list(fast)
        for place, value in zip(places, values, strict=True):
            whole[place] = value
        return cross_entropy(conv4(work, whole, x), y)

    for _ in range(work.inner_steps):
        gradients = jax.grad(loss)([fast[p] for p in places])
        if work.first_order:
            gradients = [lax.stop_gradient(g) for g in gradients]
        for i, place in enumerate(places):
            rate = rates[i] if rates else works.INNER_LEARNING_RATE
            fast[place] = fast[place] - rate * gradients[i]
    return fast


def prepare(work: Work, over_tasks: Callable[..., Any]) -> Any:
    data = {name: jnp.asarray(a) for name, a in work.episodes().items()}
    weights = [jnp.asarray(w) for w in work.weights()]

    def predict_task(weights: Any, task: dict[str, jax.Array]) -> jax.Array:
        fast = adapted(work, weights, task["support_x"], task["support_y"])
        return conv4(work, fast, task["query_x"])

    if work.task != "train":
        predict = jax.jit(lambda w, d: over_tasks(lambda t: predict_task(w, t), d))
        return timed(lambda: np.asarray(predict(weights, data))), lambda: [
            np.asarray(predict(weights, data))
        ]

    def task_loss(weights: Any, task: dict[str, jax.Array]) -> jax.Array:
        return cross_entropy(predict_task(weights, task), task["query_y"])

    def loss_and_gradient(weights: Any, data: Any) -> Any:
        if over_tasks is each:  # its memory stays flat if the outer gradient is taken per task
            return jax.tree.map(
                lambda v: v.mean(0),
                over_tasks(lambda t: jax.value_and_grad(task_loss)(weights, t), data),
            )
        return jax.value_and_grad(lambda w: over_tasks(lambda t: task_loss(w, t), data).mean())(
            weights
        )

    optimizer = optax.adam(works.LEARNING_RATE)

    @jax.jit
    def step(weights: Any, state: Any, data: Any) -> Any:
        loss, gradients = loss_and_gradient(weights, data)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(weights, updates), state, loss

    current: list[Any] = [weights, optimizer.init(weights)]

    def train() -> None:
        *current[:], loss = step(*current, data)
        loss.block_until_ready()

    def check() -> list[Any]:
        loss, gradients = jax.jit(loss_and_gradient)(weights, data)
        return [np.asarray(loss), *map(np.asarray, gradients)]

    return timed(train), check


def each(function: Callable[..., Any], data: Any) -> Any:
    return lax.map(function, data)


def all_at_once(function: Callable[..., Any], data: Any) -> Any:
    return jax.vmap(function)(data)


def describe() -> dict[str, Any]:
    return {"jax": jax.__version__, "optax": optax.__version__}


if __name__ == "__main__":
    serve(
        {
            "JAX, vmap": lambda work: prepare(work, all_at_once),
            "JAX, lax.map": lambda work: prepare(work, each),
        },
        describe,
    )
