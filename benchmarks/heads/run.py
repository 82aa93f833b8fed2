"""The accuracy of the heads on the same frozen features and the same episodes, as a table.

python benchmarks/heads/run.py [--data emoji] [--data-dir DIR] [--resize-to 128] [--episodes 600]
"""

from __future__ import annotations

import argparse
import sys

import keras

import tfmeta

SETTINGS = ((5, 1, 3), (5, 5, 3), (12, 3, 3))  # n_way, n_shot, n_query
BASE_CLASSES = 150  # of the training split, for SimpleShot's mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="emoji", help="a data set with the splits train and test")
    parser.add_argument("--data-dir", help="where TensorFlow Datasets has it")
    parser.add_argument("--resize-to", type=int, default=128, help="the encoder's height and width")
    parser.add_argument("--episodes", type=int, default=600)
    options = parser.parse_args()

    tfmeta.configure_threads()
    size = {"image_size": (options.resize_to, options.resize_to)}
    train, test = (
        tfmeta.data.load(options.data, split=split, data_dir=options.data_dir, **size)
        for split in ("train", "test")
    )
    encoder = tfmeta.backbones.pretrained("efficientnet_lite0", input_shape=test.example_shape)
    features = tfmeta.data.embed(test, encoder, verbose=2)
    base = tfmeta.data.embed(train.subset(train.class_names[:BASE_CLASSES]), encoder, verbose=2)

    def identity() -> keras.Model:
        return keras.Sequential([keras.Input(features.example_shape), keras.layers.Identity()])

    centred = tfmeta.SimpleShot(identity())
    centred.set_feature_mean(base)
    heads = {
        "PrototypicalNetwork": tfmeta.PrototypicalNetwork(identity()),
        "SimpleShot, no mean": tfmeta.SimpleShot(identity()),
        "SimpleShot": centred,
        **{
            head.__name__: head(identity())
            for head in (
                tfmeta.CosinePrototypicalNetwork,
                tfmeta.RidgeHead,
                tfmeta.LogisticHead,
                tfmeta.MahalanobisHead,
                tfmeta.BaselinePlusPlus,
            )
        },
    }
    print("| head |" + "".join(f" {way}-way {shot}-shot |" for way, shot, _ in SETTINGS))
    print("| --- " * (1 + len(SETTINGS)) + "|")
    for name, head in heads.items():
        cells = []
        for n_way, n_shot, n_query in SETTINGS:
            kept = features.drop_small_classes(n_shot + n_query)
            episodes = kept.episodes(n_way, n_shot, n_query, meta_batch_size=25, seed=1)
            result = tfmeta.evaluate(head, episodes, n_episodes=options.episodes)
            cells.append(f" {100 * result.mean:.1f} ± {100 * result.ci95:.1f} |")
            print(".", end="", file=sys.stderr, flush=True)
        print(f"| {name} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
