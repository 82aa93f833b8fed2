"""Icons of many families, drawn from npm packages that the user installs."""

from __future__ import annotations

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.sources.drawings import (
    dataset_of_drawings,
    prepare_from_packages,
    warn_unless_published,
)
from tfmeta.data.sources.from_tfds import Directory
from tfmeta.data.splits import check_split, proportional_sizes, split_classes


def icons(
    split: str = "train",
    data_dir: Directory = None,
    image_size: tuple[int, int] | None = None,
    manual_dir: Directory = None,
) -> ClassDataset:
    """Icons: 263 classes with at least 20 drawings each, by 64 families; grey, ink = 1.

    A class is what icons mean: their names without styles, with synonyms joined. Trade marks and
    names with several meanings are left out. Images that are nearly the same are there once.

    Nothing is downloaded. The drawings come from npm packages, which have their own licences (see
    docs/data_licences.md). The first use renders them, in some minutes, into `data_dir`.

    The groups of the examples, for `ClassDataset.episodes(support_groups=…, query_groups=…)`, are
    the families, such as "mdi" or "tabler".

    Args:
        split: str. "train", "validation", "test" or "all": 64 %, 16 % and 20 % of the classes,
            drawn by a fixed seed over the sorted names, or all of them. Defaults to "train".
        data_dir: str, path or None. TensorFlow Datasets' directory. Defaults to its own default.
        image_size: (height, width) in pixels, or None. The size of the images; they are stored
            as 64×64. Defaults to None: 28×28, as for Omniglot.
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
    from tfmeta.data.icon_packages import PACKAGES
    from tfmeta.data.icons import PUBLISHED_DIGEST, IconsBuilder

    check_split(split)
    height, width = image_size or (28, 28)
    builder = IconsBuilder(data_dir=data_dir)
    prepare_from_packages(builder, PACKAGES, manual_dir)
    warn_unless_published(builder, PUBLISHED_DIGEST)
    image_format = ImageFormat(height, width, channels=1, invert=True)
    source = {"name": "icons", "split": split, "image_size": [height, width]}
    names = builder.info.features["label"].names
    classes = split_classes(names, split, proportional_sizes(len(names)))
    return dataset_of_drawings(builder, ["train"], classes, image_format, source)
