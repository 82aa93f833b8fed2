"""How fast episodes come, and how long meta-training waits for them.

python benchmarks/episodes.py [--data omniglot] [--data-dir DIR]
"""

import argparse
import time

import keras
import numpy as np

import tfmeta


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="glyphs")
    parser.add_argument("--data-dir")
    parser.add_argument("--meta-batches", type=int, default=300)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    tfmeta.configure_threads()

    began = time.perf_counter()
    classes = tfmeta.data.load(options.data, data_dir=options.data_dir)
    print(f"loaded {classes} in {time.perf_counter() - began:.1f} s")

    rates = []
    for repetition in range(5):
        episodes = classes.episodes(
            n_way=5, n_shot=1, n_query=15, meta_batch_size=32, seed=repetition
        )
        iterator = iter(episodes)
        for _ in range(20):  # Fills the buffers.
            next(iterator)
        began = time.perf_counter()
        for _ in range(options.meta_batches):
            next(iterator)
        rates.append(32 * options.meta_batches / (time.perf_counter() - began))
    print(
        "5-way 1-shot 15-query episodes per second in meta-batches of 32: "
        f"median {np.median(rates):.0f}, min {min(rates):.0f}, max {max(rates):.0f}"
    )

    learner = tfmeta.MAML(
        tfmeta.backbones.conv4(5, classes.example_shape), inner_learning_rate=0.4, inner_steps=1
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    iterator = iter(classes.episodes(n_way=5, n_shot=1, n_query=5, meta_batch_size=32, seed=0))
    learner.train_on_batch(*next(iterator))
    waited, stepped = [], []
    for _ in range(options.steps):
        began = time.perf_counter()
        batch = next(iterator)
        got = time.perf_counter()
        learner.train_on_batch(*batch)
        waited.append(got - began)
        stepped.append(time.perf_counter() - got)
    share = sum(waited) / (sum(waited) + sum(stepped))
    print(
        f"MAML step, 32 tasks, 1 inner step: median {1000 * np.median(stepped):.0f} ms; waiting "
        f"for data {100 * share:.2f} % of the time"
    )


if __name__ == "__main__":
    main()
