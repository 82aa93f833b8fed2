"""Glyphs: an Omniglot-like few-shot data set drawn from the fonts that ship with matplotlib.

It needs no network: the characters of many scripts are drawn in the font faces that have them.
Characters that look alike (Latin A, Greek Α, Cyrillic А; o, O, 0) are one class, found by comparing
the drawings themselves.
"""

import hashlib
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import matplotlib
import numpy as np
import PIL
import tensorflow_datasets as tfds
from PIL import ImageFont

from tfmeta.data.glyph_drawing import IMAGE_SIZE, choose_characters, draw_class, load_faces

NUM_CLASSES = 1300
# Digests of the images with which the numbers on the cards were measured, by split.
PUBLISHED_DIGESTS = {
    "train": "4ae4e72dcc4e3f8cd32dd7509ceef841b1dc39ad39a1e8024c3a50e71a84e5b3",
    "validation": "3471a6d05d6576f3f5bdc35bb4b9701e28a22a84d38d9f138bf0f379acd2e892",
    "test": "58ac5be22081048beb97db1f5c544df19840d2951fb1225434bae3555d6f70f1",
    "all": "270f13c5d8e5c8b6c29ceaa524391f4f2a47795cba0354a87ea19241ac14b0e6",
}


def digest(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> str:
    """Computes a digest of images, their order and their classes.

    Args:
        images: uint8 `[N, height, width, channels]`.
        labels: int `[N]`.
        class_names: sequence of str. Names of the classes.

    Returns:
        A SHA-256 in hexadecimal.
    """
    content = hashlib.sha256("\n".join(class_names).encode())
    content.update(np.ascontiguousarray(labels, "<i8").tobytes())
    content.update(np.ascontiguousarray(images).tobytes())
    return content.hexdigest()


def warn_unless_published(
    split: str, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> None:
    """Warns if the images of a split are not those of the published numbers.

    Args:
        split: str. "train", "validation", "test" or "all".
        images: uint8 `[N, height, width, channels]`, ink = 255.
        labels: int `[N]`.
        class_names: sequence of str. Names of the classes of the split.
    """
    if digest(images, labels, class_names) == PUBLISHED_DIGESTS[split]:
        return
    # A warning and no error: the images are a sound data set, and only comparing with published
    # numbers needs the very same ones. An error would break each new matplotlib and Pillow.
    warnings.warn(
        "These glyphs differ from those with which tfmeta's published numbers were measured, "
        "because they were drawn with another version of matplotlib's fonts or of Pillow "
        f"(installed are matplotlib {matplotlib.__version__} and Pillow {PIL.__version__}). "
        "Results may differ from the published ones, too.",
        RuntimeWarning,
        stacklevel=2,
    )


class Glyphs(tfds.core.GeneratorBasedBuilder):
    """Characters of many scripts, 20 images each.

    Read the split "all" and split it by class: the data set has no splits of its own.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Initial release."}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 1)),
                    "label": tfds.features.ClassLabel(num_classes=NUM_CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        fonts, coverage = load_faces()
        points = choose_characters(fonts, coverage, NUM_CLASSES)
        # Not in _info, which would analyse the fonts whenever the data set is loaded.
        self.info.features["label"].names = [
            f"U+{p:04X} {unicodedata.name(chr(p))}" for p in points
        ]
        # TFDS reserves the name "all" for the union of all splits: of this one.
        return {"train": self._generate_examples(fonts, {p: coverage[p] for p in points})}

    def _generate_examples(
        self, fonts: Sequence[ImageFont.FreeTypeFont], classes: Mapping[int, Sequence[int]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for label, (point, faces) in enumerate(classes.items()):
            for number, image in enumerate(draw_class(fonts, faces, point)):
                yield f"{point:04X}_{number:02d}", {"image": image, "label": label}
