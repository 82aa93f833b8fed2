"""CIFAR-FS: CIFAR-100, from TensorFlow Datasets, in a split for few-shot learning."""

from __future__ import annotations

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.images import ImageFormat
from tfmeta.data.sources.from_tfds import Directory, dataset_of_classes, prepared_builder
from tfmeta.data.splits import check_split

# The names are those of CIFAR-100's fine labels. Bertinetto et al. distribute the split as
# `splits/bertinetto/*.txt` beside the images; this copy is from torchmeta 1.8.0,
# `torchmeta/datasets/assets/cifar100/cifar-fs/*.json`.
_NAMES = {
    "train": (
        "apple aquarium_fish bear bee bottle bowl boy bridge bus can castle caterpillar chair "
        "clock cloud cockroach couch cup dinosaur dolphin elephant forest girl hamster house "
        "kangaroo keyboard lawn_mower lion lizard lobster mountain mouse mushroom oak_tree "
        "orange orchid palm_tree pear pine_tree plate porcupine possum rabbit raccoon ray road "
        "seal shrew skunk skyscraper snake spider squirrel streetcar sunflower tank tiger train "
        "trout tulip turtle willow_tree wolf"
    ),
    "validation": (
        "beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree "
        "motorcycle otter sea shark television tractor"
    ),
    "test": (
        "baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail "
        "sweet_pepper table telephone wardrobe whale woman worm"
    ),
}

CIFAR_FS = {part: names.split() for part, names in _NAMES.items()}


def cifar_fs(split: str = "train", data_dir: Directory = None) -> ClassDataset:
    """CIFAR-FS: the classes of CIFAR-100, split for few-shot learning; 32×32 RGB, 600 images each.

    Args:
        split: str. "train", "validation", "test" or "all": the 64, 16 and 20 classes of
            `CIFAR_FS`, or all 100. Defaults to "train".
        data_dir: str, path or None. TensorFlow Datasets' directory, for `cifar100`. Defaults to
            None, its own default.

    Raises:
        ValueError: If there is no such split.
        ConnectionError: If CIFAR-100 had to be downloaded and could not be.

    Reference:
        Bertinetto, Henriques, Torr, Vedaldi (2019), Meta-learning with differentiable closed-form
        solvers, https://arxiv.org/abs/1805.08136, section 4.2.
    """
    check_split(split)
    classes = [name for part in CIFAR_FS if split in (part, "all") for name in CIFAR_FS[part]]
    builder = prepared_builder("cifar100", data_dir)
    source = {"name": "cifar_fs", "split": split}
    # The order of the examples, and with it every episode, depends on this order of the splits.
    return dataset_of_classes(builder, ("test", "train"), classes, ImageFormat(32, 32), source)
