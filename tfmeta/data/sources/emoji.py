"""Emoji, drawn from npm packages that the user installs."""

from __future__ import annotations

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.sources.drawings import (
    dataset_of_drawings,
    prepare_from_packages,
    warn_unless_published,
)
from tfmeta.data.sources.from_tfds import Directory
from tfmeta.data.splits import check_split


def emoji(
    split: str = "train",
    data_dir: Directory = None,
    image_size: tuple[int, int] | None = None,
    manual_dir: Directory = None,
) -> ClassDataset:
    """Emoji: 930 classes with 8 to 10 drawings each, by nine vendors; in colour on white.

    The classes are the emoji of one code point, without flags, of which at least 8 of the ten sets
    have a drawing. They are split by Unicode group, so that the groups of the test are unseen.

    Nothing is downloaded. The drawings come from npm packages, which have their own licences (see
    docs/data_licences.md). The first use renders them, in some minutes, into `data_dir`.

    The groups of the examples, for `ClassDataset.episodes(support_groups=…, query_groups=…)`, are
    the vendors: "twemoji", "noto", "noto-v1", "openmoji", "fluent", "emojione", "emojione-v1",
    "fxemoji" and "streamline". The two sets of Fluent share their drawings and are one vendor.

    Args:
        split: str. "train" (Objects, Travel & Places, Smileys & Emotion, Symbols; 650 classes),
            "validation" (Activities, People & Body; 125), "test" (Animals & Nature, Food & Drink;
            155) or "all". Defaults to "train".
        data_dir: str, path or None. TensorFlow Datasets' directory. Defaults to its own default.
        image_size: (height, width) in pixels, or None. The size of the images; they are stored
            as 128×128. Defaults to None: 64×64.
        manual_dir: str, path or None. The folder in which npm was run. Needed for the first use
            only. Defaults to the folder `downloads/manual` of `data_dir`.

    Raises:
        ValueError: If there is no such split, or the data set is neither in `data_dir` nor are the
            packages in `manual_dir`. The message says what to run.
        ModuleNotFoundError: If the renderer is missing: `pip install "tfmeta[emoji]"`.

    Warns:
        RuntimeWarning: If the images are not those that this documentation counts.
    """
    # Imported late because this imports TensorFlow Datasets.
    from tfmeta.data.emoji import PACKAGES, PUBLISHED_DIGEST, SPLIT_GROUPS, EmojiBuilder

    check_split(split)
    height, width = image_size or (64, 64)
    builder = EmojiBuilder(data_dir=data_dir)
    prepare_from_packages(builder, PACKAGES, manual_dir)
    warn_unless_published(builder, PUBLISHED_DIGEST)
    splits = list(SPLIT_GROUPS) if split == "all" else [split]
    source = {"name": "emoji", "split": split, "image_size": [height, width]}
    classes = builder.info.features["label"].names
    return dataset_of_drawings(builder, splits, classes, ImageFormat(height, width), source)
