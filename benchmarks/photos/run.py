"""A folder of one's own colour images: the accuracy of each method, and the time of `tfmeta adapt`.

python benchmarks/photos/run.py PART … [--data-dir DIR] [--draws 200] [--minutes 6]

The parts are `heads`, `sizes`, `augmentation`, `fine_tuning`, `conv4` and `adapt`. Each draw is 12
classes of the test split of emoji with 3 images to learn from and 5 others to test on; draw i is
the same for all methods. The images are written as PNG files and loaded as a user would.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfmeta
from tfmeta.data import ClassDataset, ImageFormat

WAYS, SHOTS, QUERIES = 12, 3, 5
# Height and width as read from the files, and to which the network resizes them.
SIZES = (
    *((32, 128), (64, None), (64, 128), (64, 224)),
    *((96, None), (128, None), (128, 224)),
)
STORED = 128  # The height and width of the PNG files, as emoji are stored.


class StopAfter(keras.callbacks.Callback):
    """Stops training after some minutes, between two steps."""

    def __init__(self, minutes: float) -> None:
        super().__init__()
        self.minutes = minutes
        self.steps = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self.end = time.monotonic() + 60 * self.minutes

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        if time.monotonic() > self.end:
            self.model.stop_training = True


class Benchmark:
    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = folder
        test = self.emoji("test", STORED)
        for name, rows in zip(test.class_names, test.rows, strict=True):
            (folder / name).mkdir(parents=True)
            for i, image in enumerate(test.fetch(tf.constant(rows)).numpy()):
                pixels = tf.io.encode_png((255 * image).round().astype(np.uint8)).numpy()
                (folder / name / f"{i}.png").write_bytes(pixels)

    def emoji(self, split: str, size: int) -> ClassDataset:
        return tfmeta.data.load(
            "emoji", split=split, data_dir=self.options.data_dir, image_size=(size, size)
        )

    def photos(self, size: int) -> ClassDataset:
        return tfmeta.data.load(self.folder, image_format=ImageFormat(size, size))

    def features(self, size: int, resize_to: int | None = None) -> ClassDataset:
        photos = self.photos(size)
        encoder = pretrained(size, resize_to)
        return tfmeta.data.embed(photos, encoder, verbose=0)

    def show(self, name: str, learner: Any, data: ClassDataset, draws: int | None = None) -> None:
        draws = draws or self.options.draws
        episodes = data.episodes(WAYS, SHOTS, QUERIES, meta_batch_size=5, seed=1)
        began = time.perf_counter()
        result = tfmeta.evaluate(learner, episodes, n_episodes=draws)
        seconds = (time.perf_counter() - began) / draws
        row(name, result.mean, result.ci95, draws, f"{seconds:.2f} s per draw")

    # === The parts ===

    def heads(self) -> None:
        """All heads on the frozen encoder."""
        features = self.features(STORED)
        for head in (
            tfmeta.PrototypicalNetwork,
            tfmeta.CosinePrototypicalNetwork,
            tfmeta.SimpleShot,
            tfmeta.RidgeHead,
            tfmeta.LogisticHead,
            tfmeta.MahalanobisHead,
            tfmeta.BaselinePlusPlus,
        ):
            self.show(head.__name__, head(identity(features)), features)

    def sizes(self) -> None:
        """Image sizes, as read from the files and as the encoder sees them."""
        for size, resize_to in SIZES:
            features = self.features(size, resize_to)
            name = f"RidgeHead, read at {size}" + (f", resized to {resize_to}" if resize_to else "")
            self.show(name, tfmeta.RidgeHead(identity(features)), features)

    def augmentation(self) -> None:
        """More support examples for a frozen encoder: each image and a changed copy of it."""
        draws = min(self.options.draws, 50)
        encoder = pretrained(STORED)
        photos = self.photos(STORED)

        def episodes(**options: Any) -> Any:
            return photos.episodes(WAYS, SHOTS, QUERIES, 1, seed=1, **options).take(draws)

        changed = episodes(augment={"support": augmentation()})
        embedded = []
        for (inputs, y), (others, _) in zip(episodes(), changed, strict=True):
            images = [inputs["support_x"][0], others["support_x"][0], inputs["query_x"][0]]
            features = [encoder.predict_on_batch(x) for x in images]
            embedded.append((*features, inputs["support_y"][0], y[0]))
        support, copies, queries, support_y, query_y = map(np.stack, zip(*embedded, strict=True))
        more = {
            "each image": (support, support_y),
            "a changed copy of each image": (copies, support_y),
            "both": (
                np.concatenate([support, copies], axis=1),
                np.concatenate([support_y, support_y], axis=1),
            ),
        }
        for head in (tfmeta.SimpleShot, tfmeta.RidgeHead, tfmeta.LogisticHead):
            for name, (x, y) in more.items():
                inputs = {"support_x": x, "support_y": y, "query_x": queries}
                data = tf.data.Dataset.from_tensor_slices((inputs, query_y)).batch(5)
                learner = head(identity(encoder.output_shape[1:]))
                result = tfmeta.evaluate(learner, data, n_episodes=draws)
                row(f"{head.__name__}, {name}", result.mean, result.ci95, draws)

    def fine_tuning(self) -> None:
        """The last layers of the encoder, tuned to each task, beside the same without tuning."""
        draws = self.options.tuned_draws
        photos = self.photos(STORED)
        for learning_rate in self.options.learning_rates:
            encoder = tfmeta.backbones.pretrained(
                "efficientnet_lite0", input_shape=photos.example_shape, trainable=True
            )
            last = [layer.name for layer in encoder.layers].index("block15_expand")
            for layer in encoder.layers[:last]:
                layer.trainable = False
            learner = tfmeta.FineTuning(
                encoder,
                learning_rate=learning_rate,
                steps=self.options.steps,
                augment=augmentation(),
                batch_norm="running",
            )
            name = f"FineTuning, learning_rate={learning_rate:g}, {self.options.steps} steps"
            self.show(name, learner, photos, draws)

    def conv4(self) -> None:
        """Conv4 without pretraining: meta-trained on emoji's train split, and on nothing."""
        size = 64
        photos = self.photos(size)
        train = self.emoji("train", size)
        for augment in (None, augmentation()):
            keras.utils.set_random_seed(0)
            encoder = tfmeta.backbones.conv4(None, photos.example_shape, head="flatten")
            learner = tfmeta.PrototypicalNetwork(encoder, batch_norm="support")
            learner.compile(keras.optimizers.Adam(1e-3), learner.default_loss())
            episodes = train.episodes(WAYS, SHOTS, SHOTS, meta_batch_size=1, augment=augment)
            timer = StopAfter(self.options.minutes)
            learner.fit(
                episodes, steps_per_epoch=10**6, callbacks=[timer], shuffle=False, verbose=0
            )
            name = "Conv4, meta-trained" + (", augmented" if augment else "")
            self.show(f"{name}, {timer.steps} steps in {timer.minutes:g} minutes", learner, photos)

        keras.utils.set_random_seed(0)
        encoder = tfmeta.backbones.conv4(None, photos.example_shape, head="flatten")
        self.show(
            "Conv4, random weights, RidgeHead",
            tfmeta.RidgeHead(encoder, batch_norm="support"),
            photos,
        )
        learner = tfmeta.FineTuning(
            encoder,
            learning_rate=1e-3,
            steps=self.options.steps,
            augment=augmentation(),
            batch_norm="support",
        )
        name = f"Conv4 from scratch on the 36 images, {self.options.steps} steps"
        self.show(name, learner, photos, self.options.tuned_draws)

    def adapt(self) -> None:
        """Wall time of `tfmeta adapt`, of which importing TensorFlow is a part."""
        support = self.folder.parent / "support"
        for name in sorted(folder.name for folder in self.folder.iterdir())[:: 155 // WAYS][:WAYS]:
            (support / name).mkdir(parents=True)
            for i in range(SHOTS):
                (support / name / f"{i}.png").symlink_to(self.folder / name / f"{i}.png")
        preset = self.folder.parent / "preset"
        learner = tfmeta.SimpleShot(pretrained(64, STORED), batch_norm="running")
        learner.save_to_preset(preset, image_format=ImageFormat(64, 64))
        output = ["--output", str(self.folder.parent / "task")]
        commands = {
            "import tensorflow, keras": [sys.executable, "-c", "import tensorflow, keras"],
            "tfmeta adapt": [
                *(sys.executable, "-m", "tfmeta", "adapt", str(preset)),
                *("--support", str(support), *output),
            ],
        }
        for name, command in commands.items():
            seconds = []
            for _ in range(5):
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                seconds.append(time.perf_counter() - began)
            print(f"{name}: median {np.median(seconds):.2f} s of {np.round(seconds, 2)}")


def pretrained(size: int, resize_to: int | None = None) -> keras.Model:
    return tfmeta.backbones.pretrained(
        "efficientnet_lite0", input_shape=(size, size, 3), resize_to=resize_to
    )


def identity(data: ClassDataset | tuple[int, ...]) -> keras.Model:
    shape = data.example_shape if isinstance(data, ClassDataset) else data
    return keras.Sequential([keras.Input(shape), keras.layers.Identity()])


def augmentation() -> keras.Sequential:
    return keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(0.05, fill_mode="nearest"),
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"),
            keras.layers.RandomBrightness(0.2, value_range=(0, 1)),
        ]
    )


def row(name: str, mean: float, interval: float, draws: int, note: str = "") -> None:
    print(f"| {name} | {100 * mean:.1f} ± {100 * interval:.1f} | {draws} | {note} |", flush=True)


PARTS = ("heads", "sizes", "augmentation", "fine_tuning", "conv4", "adapt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--data-dir", help="where TensorFlow Datasets has emoji")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=6, help="of meta-training of a Conv4")
    parser.add_argument("--tuned-draws", type=int, default=10, help="draws of fine-tuning")
    parser.add_argument("--steps", type=int, default=50, help="of fine-tuning")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-4, 1e-3])
    options = parser.parse_args()
    tfmeta.configure_threads()
    with tempfile.TemporaryDirectory() as root:
        benchmark = Benchmark(Path(root, "photos"), options)
        for part in options.parts:
            print(f"{part}: {getattr(Benchmark, part).__doc__}")
            getattr(benchmark, part)()


if __name__ == "__main__":
    main()
