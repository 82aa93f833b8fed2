"""Emoji: a few-shot data set in colour, one class per emoji and one image per vendor's drawing.

The drawings come from npm packages that the user installs. Nothing is downloaded.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from tfmeta.data.emoji_names import HUB, Emoji, drawings_of, list_emoji
from tfmeta.data.iconify import IconSet, Package, check_installed, npm_command
from tfmeta.data.running_digest import RunningDigest
from tfmeta.data.svg_rendering import render

IMAGE_SIZE = 128
# The fewest drawings of a class. With 9, there would be 220 classes fewer.
MIN_DRAWINGS = 8
# Digest of the images that the documentation counts.
PUBLISHED_DIGEST = "2ad5000b75199dfcff38908c0c5ab13f969e488b9baaa61c5a1c852d87dfaf6f"
SPLIT_GROUPS = {
    "train": ("Objects", "Travel & Places", "Smileys & Emotion", "Symbols"),
    "validation": ("Activities", "People & Body"),
    "test": ("Animals & Nature", "Food & Drink"),
}
PACKAGES = (
    Package("twemoji", "1.2.5", "CC-BY-4.0", "Twitter", "twemoji"),
    Package("noto", "1.2.9", "Apache-2.0", "Google Inc", "noto"),
    Package("noto-v1", "1.2.5", "Apache-2.0", "Google Inc", "noto-v1"),
    Package("openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji", "openmoji"),
    # The same drawings, once with gradients and shadows and once without.
    Package("fluent-emoji", "1.2.7", "MIT", "Microsoft Corporation", "fluent"),
    Package("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft Corporation", "fluent"),
    Package("emojione", "1.2.3", "CC-BY-4.0", "Emoji One", "emojione"),
    Package("emojione-v1", "1.2.3", "CC-BY-SA-4.0", "Emoji One", "emojione-v1"),
    Package("fxemoji", "1.2.2", "Apache-2.0", "Mozilla", "fxemoji"),
    Package("streamline-emojis", "1.2.4", "CC-BY-4.0", "Streamline", "streamline"),
)
VENDORS = list(dict.fromkeys(package.vendor for package in PACKAGES))


class EmojiBuilder(tfds.core.GeneratorBasedBuilder):
    """Emoji in the drawings of nine vendors, in colour on white, split by Unicode group."""

    name = "emoji"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Initial release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Run, with the folder manual_dir: {npm_command(PACKAGES)}"

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 3)),
                    # How many there are depends on the packages.
                    "label": tfds.features.ClassLabel(),
                    "group": tfds.features.ClassLabel(names=VENDORS),
                }
            ),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        check_installed(dl_manager.manual_dir, PACKAGES, self.name)
        sets = {package.name: IconSet(dl_manager.manual_dir, package.name) for package in PACKAGES}
        found = drawings_of(list_emoji(sets[HUB]), sets)
        classes = {emoji: names for emoji, names in found.items() if len(names) >= MIN_DRAWINGS}
        self.info.features["label"].names = [emoji.name for emoji in classes]
        self._digest = RunningDigest(self.info.metadata)
        return {
            split: self._generate_examples(
                sets, {emoji: names for emoji, names in classes.items() if emoji.group in groups}
            )
            for split, groups in SPLIT_GROUPS.items()
        }

    def _generate_examples(
        self, sets: Mapping[str, IconSet], classes: Mapping[Emoji, Mapping[str, str]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for emoji, names in classes.items():
            for package in PACKAGES:
                if package.name not in names:
                    continue
                svg = sets[package.name].svg(names[package.name])
                image = render(svg, IMAGE_SIZE, channels=3)
                key = f"{emoji.name} {package.name}"
                self._digest.add(key, image)
                yield key, {"image": image, "label": emoji.name, "group": package.vendor}
