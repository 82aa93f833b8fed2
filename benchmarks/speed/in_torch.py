"""The work done by PyTorch: a loop over tasks, and `torch.func.vmap` over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import work as works
from torch.func import grad, vmap
from work import Work
from worker import serve, timed


def to_torch(w: np.ndarray) -> torch.Tensor:
    """Kernels to [filters, channels, rows, columns], dense kernels to [out, in]."""
    if w.ndim == 4:
        w = w.transpose(3, 2, 0, 1)
    if w.ndim == 2:
        w = w.T
    return torch.tensor(np.ascontiguousarray(w))


def to_keras(w: torch.Tensor) -> np.ndarray:
    a = w.detach().numpy()
    return a.transpose(2, 3, 1, 0) if a.ndim == 4 else a.T


def same_as_keras(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Pads an even image for a 3×3 kernel of stride 2 as Keras does: below and to the right."""
    total = [max((-(-n // stride) - 1) * stride + 3 - n, 0) for n in x.shape[-2:]]
    (top, bottom), (left, right) = [(t // 2, t - t // 2) for t in total]
    return F.pad(x, (left, right, top, bottom))


def convolution(x: torch.Tensor, kernel: torch.Tensor, stride: int) -> torch.Tensor:
    if stride == 1 or x.shape[-1] % 2:
        return F.conv2d(x, kernel, stride=stride, padding=1)
    return F.conv2d(same_as_keras(x, stride), kernel, stride=stride)


def conv4(
    work: Work,
    weights: list[torch.Tensor],
    x: torch.Tensor,
) -> torch.Tensor:
    for block in range(4):
        kernel, beta = weights[2 * block : 2 * block + 2]
        x = convolution(x, kernel, 1 if work.max_pool else 2)
        x = F.relu(F.batch_norm(x, None, None, None, beta, training=True, eps=1e-3))
        if work.max_pool:
            x = F.max_pool2d(x, 2)
    # Flattened in Keras's order: rows, columns, channels.
    x = x.permute(0, 2, 3, 1).flatten(1) if work.max_pool else x.mean((2, 3))
    return F.linear(x, *weights[8:10]) if len(weights) > 8 else x


def adapted(
    work: Work, weights: list[Any], x: torch.Tensor, y: torch.Tensor, gradient: Callable[..., Any]
) -> list[torch.Tensor]:
    """The task's weights: the inner steps change kernels, biases, but no batch norm."""
    fast, rates = list(weights[:10]), weights[10:]
    places = [0, 2, 4, 6, 8, 9]
    for _ in range(work.inner_steps):
        gradients = gradient(fast, places, x, y)
        for i, place in enumerate(places):
            rate = rates[i] if rates else works.INNER_LEARNING_RATE
            fast[place] = fast[place] - rate * gradients[i]
    return fast


def images(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.ascontiguousarray(np.moveaxis(array, -1, -3)))


class Episodes:
    def __init__(self, work: Work) -> None:
        data = work.episodes()
        self.sx, self.qx = images(data["support_x"]), images(data["query_x"])
        self.sy = torch.tensor(data["support_y"], dtype=torch.long)
        self.qy = torch.tensor(data["query_y"], dtype=torch.long)


def by_loop(work: Work) -> Any:
    """One task after the other, as learn2learn does."""
    data = Episodes(work)
    weights = [to_torch(w).requires_grad_() for w in work.weights()]
    training = work.task == "train"

    def gradient(fast: Any, places: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
        loss = F.cross_entropy(conv4(work, fast, x), y)
        return torch.autograd.grad(
            loss, [fast[p] for p in places], create_graph=training and not work.first_order
        )

    def task_loss(t: int) -> torch.Tensor:
        fast = adapted(work, weights, data.sx[t], data.sy[t], gradient)
        return F.cross_entropy(conv4(work, fast, data.qx[t]), data.qy[t])

    if not training:

        def predict() -> torch.Tensor:
            outputs = []
            for t in range(work.n_tasks):
                fast = adapted(work, weights, data.sx[t], data.sy[t], gradient)
                with torch.no_grad():
                    outputs.append(conv4(work, fast, data.qx[t]))
            return torch.stack(outputs)

        return timed(predict), lambda: [predict().numpy()]

    def all_gradients() -> float:
        total = 0.0
        for t in range(work.n_tasks):
            loss = task_loss(t) / work.n_tasks
            loss.backward()
            total += loss.item()
        return total

    return trainer(weights, all_gradients)


def by_vmap(work: Work) -> Any:
    """All tasks at once, by function transforms."""
    data = Episodes(work)
    weights = [to_torch(w).requires_grad_() for w in work.weights()]

    def gradient(fast: Any, places: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
        def loss(values: Any) -> torch.Tensor:
            whole = list(fast)
            for place, value in zip(places, values, strict=True):
                whole[place] = value
            return F.cross_entropy(conv4(work, whole, x), y)

        with torch.set_grad_enabled(not work.first_order):
            return grad(loss)([fast[p] for p in places])

    def task_loss(sx: Any, sy: Any, qx: Any, qy: Any) -> torch.Tensor:
        fast = adapted(work, weights, sx, sy, gradient)
        return F.cross_entropy(conv4(work, fast, qx), qy)

    def all_gradients() -> float:
        loss = vmap(task_loss)(data.sx, data.sy, data.qx, data.qy).mean()
        loss.backward()
        return loss.item()

    return trainer(weights, all_gradients)


def metric_network(work: Work) -> Any:
    """Prototypical and Relation Networks in plain PyTorch, on all tasks' images in turn."""
    data = Episodes(work)
    weights = [to_torch(w).requires_grad_() for w in work.weights()]

    def block(x: torch.Tensor, i: int, padding: int) -> torch.Tensor:
        kernel, gamma, beta = weights[3 * i : 3 * i + 3]
        x = F.conv2d(x, kernel, padding=padding)
        return F.relu(F.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5))

    def encode(x: torch.Tensor) -> torch.Tensor:
        for i in range(4):
            x = block(x, i, padding=int(i >= 2))
            if i < 2:
                x = F.max_pool2d(x, 2)
        return x

    def relations(t: int) -> torch.Tensor:
        support = encode(data.sx[t]).unflatten(0, (work.n_way, work.n_shot)).sum(1)
        queries = encode(data.qx[t])
        n = len(queries)
        pairs = torch.cat(
            [support[None].expand(n, *support.shape), queries[:, None].expand(n, *support.shape)],
            dim=2,
        ).flatten(0, 1)
        x = F.max_pool2d(block(pairs, 4, 1), 2)
        x = F.max_pool2d(block(x, 5, 1), 2).permute(0, 2, 3, 1).flatten(1)
        x = torch.sigmoid(F.linear(F.relu(F.linear(x, *weights[18:20])), *weights[20:22]))
        return F.mse_loss(x.view(n, work.n_way), F.one_hot(data.qy[t], work.n_way).float())

    def prototypes(t: int) -> torch.Tensor:
        support = conv4(work, weights, data.sx[t]).unflatten(0, (work.n_way, work.n_shot)).mean(1)
        queries = conv4(work, weights, data.qx[t])
        return F.cross_entropy(-((queries[:, None] - support) ** 2).sum(-1), data.qy[t])

    task_loss = relations if work.learner == "relation_network" else prototypes

    def all_gradients() -> float:
        loss = torch.stack([task_loss(t) for t in range(work.n_tasks)]).mean()
        loss.backward()
        return loss.item()

    return trainer(weights, all_gradients)


def trainer(weights: list[torch.Tensor], all_gradients: Callable[[], float]) -> Any:
    optimizer = torch.optim.Adam(weights, works.LEARNING_RATE)

    def check() -> list[Any]:
        optimizer.zero_grad()
        loss = all_gradients()
        return [np.array(loss), *[to_keras(w.grad) for w in weights]]

    def step() -> None:
        optimizer.zero_grad()
        all_gradients()
        optimizer.step()

    return timed(step), check


def loop(work: Work) -> Any:
    if work.learner in ("prototypical_network", "relation_network"):
        return metric_network(work)
    return by_loop(work)


def describe() -> dict[str, Any]:
    return {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}


if __name__ == "__main__":
    serve(
        {
            "PyTorch, loop over tasks": loop,
            "torch.func.vmap": by_vmap,
        },
        describe,
    )
