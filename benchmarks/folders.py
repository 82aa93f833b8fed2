"""How fast folders of image files are loaded, and read for episodes, by kind of file.

python benchmarks/folders.py [--kinds KIND …]

Each line is the median of five repetitions, in which the kinds take turns.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import tfmeta

N_CLASSES, PER_CLASS = 20, 50


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[274] = orientation
    return block


def photo(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Smooth colours with some noise, which compress as photos do."""
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), int)
    noisy = pixels + rng.integers(-8, 9, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


# Suffix, a function that saves a picture to a path, and the size and channels to read it at.
Kind = tuple[str, Callable[[np.random.Generator, Path], None], tuple[int, int, int]]
KINDS: dict[str, Kind] = {
    "grey PNG 28×28": (".png", lambda r, p: photo(r, 28, 28).convert("L").save(p), (28, 28, 1)),
    "JPEG 84×84": (".jpg", lambda r, p: photo(r, 84, 84).save(p), (84, 84, 3)),
    "JPEG 375×500": (".jpg", lambda r, p: photo(r, 375, 500).save(p), (84, 84, 3)),
    "JPEG 375×500, turned": (
        ".jpg",
        lambda r, p: photo(r, 375, 500).save(p, exif=exif(6)),
        (84, 84, 3),
    ),
    "RGBA PNG 84×84": (".png", lambda r, p: photo(r, 84, 84).convert("RGBA").save(p), (84, 84, 3)),
    "WebP 375×500": (".webp", lambda r, p: photo(r, 375, 500).save(p), (84, 84, 3)),
}


def make(folder: Path, kind: Kind) -> None:
    rng = np.random.default_rng(0)
    suffix, save, _ = kind
    for k in range(N_CLASSES):
        (folder / f"{k}").mkdir(parents=True)
        for i in range(PER_CLASS):
            save(rng, folder / f"{k}" / f"{i}{suffix}")


def measure(folder: Path, kind: Kind, seed: int, n_meta_batches: int) -> tuple[float, float]:
    """Returns files per second that are loaded, and images per second that episodes read."""
    height, width, channels = kind[2]
    image_format = tfmeta.data.ImageFormat(height, width, channels)
    began = time.perf_counter()
    data = tfmeta.data.load(folder, image_format=image_format)
    loaded = N_CLASSES * PER_CLASS / (time.perf_counter() - began)
    episodes = iter(data.episodes(n_way=5, n_shot=1, n_query=5, meta_batch_size=8, seed=seed))
    for _ in range(5):  # Fills the buffers.
        next(episodes)
    began = time.perf_counter()
    for _ in range(n_meta_batches):
        next(episodes)
    return loaded, n_meta_batches * 8 * 5 * 6 / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--meta-batches", type=int, default=15)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    tfmeta.configure_threads()
    warnings.simplefilter("ignore")
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in options.kinds}
    with tempfile.TemporaryDirectory() as root:
        for name in options.kinds:
            make(Path(root, name), KINDS[name])
        for repetition in range(options.repetitions):
            for name in options.kinds:
                try:
                    result = measure(
                        Path(root, name), KINDS[name], repetition, options.meta_batches
                    )
                except ValueError as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    continue
                results[name].append(result)
    for name, measured in results.items():
        if measured:
            loaded, read = np.median(measured, axis=0)
            print(f"{name}: {loaded:,.0f} files/s loaded, {read:,.0f} images/s in episodes")


if __name__ == "__main__":
    main()
