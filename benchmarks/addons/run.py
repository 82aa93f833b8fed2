"""TensorFlow Addons on Omniglot: image transforms as `augment=`, and a metric loss that pretrains.

python benchmarks/addons/run.py [--data-dir DIR] [--steps 300] [--episodes 600]

It needs the extra tfmeta[addons], on Python 3.11.
"""

from __future__ import annotations

import argparse
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfmeta
from tfmeta.addons import image, losses

WAYS, PER_CLASS = 16, 4


def turned_and_moved(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    seeds = tf.random.split(seed, 2)
    angle = tf.random.stateless_uniform([], seeds[0], -0.3, 0.3)
    shift = tf.random.stateless_uniform([2], seeds[1], -2, 2)
    turned = image.rotate(images, angle, interpolation="bilinear")
    return image.translate(turned, shift, interpolation="bilinear")


def encoder() -> keras.Model:
    """The encoder of all rows, from the same start."""
    keras.utils.set_random_seed(0)
    return tfmeta.backbones.conv4(None, (28, 28, 1), filters=32)


def trained_in_episodes(data: Any, steps: int, augment: Any) -> keras.Model:
    learner = tfmeta.PrototypicalNetwork(encoder())
    learner.compile("adam", learner.default_loss())
    sizes = {"n_way": WAYS, "n_shot": 1, "n_query": PER_CLASS - 1, "meta_batch_size": 1}
    episodes = data.episodes(**sizes, seed=0, augment=augment)
    learner.fit(episodes, steps_per_epoch=steps, shuffle=False, verbose=0)
    return learner.encoder


def trained_by_triplets(data: Any, steps: int) -> keras.Model:
    """Trains with a metric loss on batches of as many images of as many classes."""
    body = encoder()
    model = keras.Sequential([body, keras.layers.UnitNormalization()])
    sizes = {"n_way": WAYS, "n_shot": PER_CLASS, "n_query": 1, "meta_batch_size": 1}
    batches = data.episodes(**sizes, seed=0).map(
        lambda inputs, _: (inputs["support_x"][0], inputs["support_y"][0])
    )
    model.compile("adam", loss=losses.triplet_semihard_loss)
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where TensorFlow Datasets has Omniglot")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 1, 2, 3], help="of the table")
    options = parser.parse_args()
    train, test = (
        tfmeta.data.load("omniglot", split=split, data_dir=options.data_dir)
        for split in ("train", "test")
    )
    steps = options.steps
    rows = {
        "nothing (random weights)": encoder,
        "episodes": lambda: trained_in_episodes(train, steps, None),
        "episodes, turned and moved": lambda: trained_in_episodes(train, steps, turned_and_moved),
        "triplet_semihard_loss": lambda: trained_by_triplets(train, steps),
    }
    print(f"| the encoder's training, {steps} steps | 5-way 1-shot, % |\n| --- | --- |")
    for name, make in (list(rows.items())[i] for i in options.rows):
        learner = tfmeta.PrototypicalNetwork(make(), batch_norm="support")
        episodes = test.episodes(n_way=5, n_shot=1, n_query=5, meta_batch_size=10, seed=1)
        accuracy = tfmeta.evaluate(learner, episodes, options.episodes).estimate
        mean, interval = 100 * np.array([accuracy.mean, accuracy.ci95])
        print(f"| {name} | {mean:.2f} ± {interval:.2f} |", flush=True)


if __name__ == "__main__":
    main()
