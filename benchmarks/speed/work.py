"""What is timed: the rows of the comparison, their data and weights. NumPy alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

INNER_LEARNING_RATE = 0.01  # larger ones blow rounding errors up at 84×84
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Work:
    """One row: the meta-training step, or another piece of work, of one learner."""

    name: str
    learner: str = "maml"  # maml, meta_sgd, prototypical_network, relation_network
    task: str = "train"  # train, evaluate, adapt
    n_tasks: int = 32
    n_way: int = 5
    n_shot: int = 1
    n_query: int = 5
    inner_steps: int = 5
    first_order: bool = False
    image: tuple[int, int, int] = (28, 28, 1)
    filters: int = 64
    max_pool: bool = False
    seed: int = 0  # of the data
    # What is smaller while it is checked that all contenders compute the same.
    check: dict[str, int] = field(default_factory=lambda: {"n_tasks": 2})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, row: dict[str, Any]) -> Work:
        return cls(**{**row, "image": tuple(row["image"])})

    # --- Data and weights ---

    def episodes(self) -> dict[str, np.ndarray]:
        """Images of noisy class means, so that there is something to learn."""
        rng = np.random.default_rng(self.seed)
        labels = {
            "support": np.repeat(np.arange(self.n_way), self.n_shot),
            "query": np.repeat(np.arange(self.n_way), self.n_query),
        }
        means = rng.normal(size=(self.n_tasks, self.n_way, *self.image))
        arrays = {}
        for part, y in labels.items():
            x = means[:, y] + rng.normal(size=(self.n_tasks, len(y), *self.image))
            arrays[f"{part}_x"] = x.astype("float32")
            arrays[f"{part}_y"] = np.tile(y, (self.n_tasks, 1)).astype("int32")
        return arrays

    def layers(self) -> list[Layer]:
        """The convolutions, in order, with the sizes of their outputs."""
        height, width, channels = self.image
        layers = []
        if self.learner == "relation_network":
            for block in range(4):
                if block < 2:
                    height, width = height - 2, width - 2
                layers.append(Layer(height, width, channels, self.filters))
                if block < 2:
                    height, width = height // 2, width // 2
                channels = self.filters
            return layers
        for _ in range(4):
            if not self.max_pool:
                height, width = -(-height // 2), -(-width // 2)
            layers.append(Layer(height, width, channels, self.filters))
            if self.max_pool:
                height, width = height // 2, width // 2
            channels = self.filters
        return layers

    def relation_layers(self) -> list[Layer]:
        last = self.layers()[-1]
        side = last.height // 2
        return [
            Layer(last.height, last.width, 2 * self.filters, self.filters),
            Layer(side, side, self.filters, self.filters),
        ]

    def n_features(self) -> int:
        last = self.layers()[-1]
        if not self.max_pool:
            return self.filters
        return (last.height // 2) * (last.width // 2) * self.filters

    def weights(self) -> list[np.ndarray]:
        """The trainable weights, in the order of the Keras model's, layer by layer."""
        rng = np.random.default_rng(1)

        def glorot(*shape: int) -> np.ndarray:
            receptive = int(np.prod(shape[:-2]))
            limit = np.sqrt(6 / (receptive * (shape[-2] + shape[-1])))
            return rng.uniform(-limit, limit, shape).astype("float32")

        def zeros(n: int) -> np.ndarray:
            return np.zeros(n, "float32")

        weights = []
        convolutions = self.layers()
        if self.learner == "relation_network":
            convolutions = convolutions + self.relation_layers()
        for layer in convolutions:
            weights.append(glorot(3, 3, layer.channels, layer.filters))
            if self.learner == "relation_network":  # its batch norm has a scale, too
                weights.append(np.ones(layer.filters, "float32"))
            weights.append(zeros(layer.filters))
        if self.learner == "relation_network":
            last = self.relation_layers()[-1]
            n_inputs = (last.height // 2) * (last.width // 2) * self.filters
            weights += [glorot(n_inputs, 8), np.ones(8, "float32")]
            weights += [glorot(8, 1), zeros(1)]
        elif self.learner != "prototypical_network":
            weights += [glorot(self.n_features(), self.n_way), zeros(self.n_way)]
        if self.learner == "meta_sgd":
            adapted = [w for i, w in enumerate(weights) if i not in (1, 3, 5, 7)]
            weights += [np.full(w.shape, INNER_LEARNING_RATE, "float32") for w in adapted]
        return weights

    # --- The floor ---

    def flop(self) -> float:
        """Multiplications and additions of the matrix products that the work needs.

        A product forward needs two backward, and where gradients of gradients are taken, the
        three need two more each. Of the first layer, no derivative by the images. A convolution
        counts as if all of its padding were pixels.
        """
        n_support, n_query = self.n_way * self.n_shot, self.n_way * self.n_query
        first, *others = [layer.flop() for layer in self.layers()]
        once, backward = first + sum(others), 2 * first + 3 * sum(others)
        if self.learner == "prototypical_network":
            return self.n_tasks * (n_support + n_query) * backward
        if self.learner == "relation_network":
            of_pairs, second = (3 * layer.flop() for layer in self.relation_layers())
            # A convolution of pairs is the sum of those of both halves of their channels.
            compare = (self.n_way + n_query) * of_pairs / 2 + n_query * self.n_way * second
            return self.n_tasks * ((n_support + n_query) * backward + compare)
        if self.task != "train":
            return self.n_tasks * (self.inner_steps * n_support * backward + n_query * once)
        twice = backward if self.first_order else 4 * first + 9 * sum(others)
        return self.n_tasks * (self.inner_steps * n_support * twice + n_query * backward)


@dataclass(frozen=True)
class Layer:
    """A 3×3 convolution."""

    height: int
    width: int
    channels: int
    filters: int

    def flop(self) -> float:
        return 2 * 9 * self.height * self.width * self.channels * self.filters


MINI: dict[str, Any] = {"image": (84, 84, 3), "filters": 32, "max_pool": True, "n_tasks": 4}
# Among so many pixels float32 soon takes a kink or a maximum otherwise.
MINI["check"] = {"n_tasks": 1, "n_query": 5, "inner_steps": 1}

ROWS = [
    Work("MAML, 5 inner steps (work A)"),
    Work("MAML, 1 inner step", inner_steps=1),
    Work("MAML, first-order", first_order=True),
    Work("MAML, 84×84×3, Conv4-32, max-pool", **MINI, n_query=15),
    Work("MAML, 20-way 1-shot", n_way=20, n_tasks=16),
    Work("Meta-SGD", learner="meta_sgd"),
    Work(
        "Prototypical Network, 20-way 1-shot",
        learner="prototypical_network",
        max_pool=True,
        n_way=20,
        n_tasks=2,
    ),
    Work("Relation Network, 5-way 1-shot", learner="relation_network", n_query=19, n_tasks=2),
    Work(
        "Relation Network, 20-way 1-shot",
        learner="relation_network",
        n_way=20,
        n_tasks=2,
        # Among 4,000 pairs, too.
        check={"n_tasks": 1, "n_query": 1},
    ),
    Work("MAML, evaluation of 32 tasks", task="evaluate"),
    Work("MAML, adapt and predict one task", task="adapt", n_tasks=1, check={}),
]
