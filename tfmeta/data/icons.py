"""Icons: a grey few-shot data set, one class per meaning and one image per family of icons.

The drawings come from npm packages that the user installs. Nothing is downloaded.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfmeta.data.icon_names import icons_of_classes
from tfmeta.data.icon_packages import PACKAGES
from tfmeta.data.iconify import IconSet, check_installed, npm_command
from tfmeta.data.running_digest import RunningDigest
from tfmeta.data.svg_rendering import render

IMAGE_SIZE = 64
# Digest of the images that the documentation counts.
PUBLISHED_DIGEST = "95fcb055832c5a0f36b975de54913d55dd5cde69af9841c4a3563d0ec0193ecf"
# As many as in Omniglot: enough for 5 shots and 15 queries.
MIN_DRAWINGS = 20
# Two drawings of a class that differ less, in grey levels of 255 per pixel on average, are one.
MIN_DIFFERENCE = 4.0
FAMILIES = [package.vendor for package in PACKAGES]


class IconsBuilder(tfds.core.GeneratorBasedBuilder):
    """Icons in the drawings of many families, dark on white.

    Read the split "all" and split it by class: the data set has no splits of its own.
    """

    name = "icons"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Initial release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Run, with the folder manual_dir: {npm_command(PACKAGES)}"

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 1)),
                    # How many there are depends on the packages.
                    "label": tfds.features.ClassLabel(),
                    "group": tfds.features.ClassLabel(names=FAMILIES),
                }
            ),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        check_installed(dl_manager.manual_dir, PACKAGES, self.name)
        sets = {package.name: IconSet(dl_manager.manual_dir, package.name) for package in PACKAGES}
        drawn = {
            label: _distinct({name: _draw(sets[name], icon) for name, icon in icons.items()})
            for label, icons in icons_of_classes(sets).items()
            if len(icons) >= MIN_DRAWINGS
        }
        classes = {label: images for label, images in drawn.items() if len(images) >= MIN_DRAWINGS}
        self.info.features["label"].names = list(classes)
        self._digest = RunningDigest(self.info.metadata)
        # TFDS reserves the name "all" for the union of all splits, which is this single split.
        return {"train": self._generate_examples(classes)}

    def _generate_examples(
        self, classes: Mapping[str, Mapping[str, np.ndarray]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for label, images in classes.items():
            for family, image in images.items():
                key = f"{label} {family}"
                self._digest.add(key, image)
                yield key, {"image": image, "label": label, "group": family}


def _draw(icons: IconSet, name: str) -> np.ndarray:
    return render(icons.svg(name), IMAGE_SIZE, channels=1)


def _distinct(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves out images that are blank, or nearly the same as an earlier one.

    Some families took icons over from others: with these, a query could be in the support set.
    """
    kept: dict[str, np.ndarray] = {}
    for family, image in images.items():
        differences = (np.abs(image.astype(np.int16) - other).mean() for other in kept.values())
        if image.min() < 128 and all(d >= MIN_DIFFERENCE for d in differences):
            kept[family] = image
    return kept
