"""The classes of CIFAR-FS: which of CIFAR-100's classes are for training, validation and test.

By Bertinetto, Henriques, Torr, Vedaldi (2019), Meta-learning with differentiable closed-form
solvers, https://arxiv.org/abs/1805.08136, who distribute it as `splits/bertinetto/*.txt` beside the
images. Taken from torchmeta 1.8.0, `torchmeta/datasets/assets/cifar100/cifar-fs/*.json`. The names
are those of CIFAR-100's fine labels.
"""

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
