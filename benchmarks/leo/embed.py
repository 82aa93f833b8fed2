"""Writes embeddings of emoji or Omniglot, on which LEO's recipes train.

python benchmarks/leo/embed.py {emoji,omniglot} MY_DATA [--data-dir DIR]

emoji: by EfficientNet-Lite0 with the weights of ImageNet, at 128×128. omniglot: by the Conv4 of the
preset prototypical_network_omniglot_lake, which was trained on the same alphabets; without
rotations. The files are MY_DATA/embeddings/NAME/{train,val,test}_embeddings.npz.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras

import tfmeta

FILES = {"train": "train", "validation": "val", "test": "test"}


def encoder_of(name: str, example_shape: tuple[int, ...]) -> keras.Model:
    if name == "emoji":
        return tfmeta.backbones.pretrained("efficientnet_lite0", input_shape=example_shape)
    return tfmeta.from_preset("prototypical_network_omniglot_lake").encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("emoji", "omniglot"))
    parser.add_argument("output", type=Path, metavar="MY_DATA")
    parser.add_argument("--data-dir", help="where TensorFlow Datasets has the images")
    parser.add_argument("--cache-dir", help="see tfmeta.data.embed")
    arguments = parser.parse_args()

    tfmeta.configure_threads()
    options: dict[str, Any] = {"protocol": "lake", "rotations": False}
    if arguments.name == "emoji":
        options = {"image_size": (128, 128)}
    for split, file in FILES.items():
        images = tfmeta.data.load(
            arguments.name, split=split, data_dir=arguments.data_dir, **options
        )
        encoder = encoder_of(arguments.name, images.example_shape)
        features = tfmeta.data.embed(
            images, encoder, batch_size=64, cache_dir=arguments.cache_dir, verbose=2
        )
        folder = arguments.output / "embeddings" / arguments.name
        tfmeta.data.write_embeddings(features, folder / f"{file}_embeddings.npz")
        print(split, features, flush=True)


if __name__ == "__main__":
    main()
