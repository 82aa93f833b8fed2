"""The options of a recipe's data and episodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import pydantic
from pydantic import BeforeValidator, Discriminator, Tag

from tfmeta.data.names import resolve
from tfmeta.recipes.augmentation import Augment
from tfmeta.recipes.options import (
    ExamplesOrNone,
    Expected,
    Flag,
    FolderPath,
    GroupNames,
    ImageSize,
    MetaBatchSize,
    Named,
    OptionalFolderPath,
    OptionalFraction,
    Options,
    Pixels,
    Size,
    Text,
    Ways,
    name_of,
    refusal,
    shown,
)

# === Sources of data ===


class Omniglot(Named):
    """Handwritten characters of 50 alphabets."""

    name: Literal["omniglot"]
    protocol: Annotated[Literal["random1200", "lake"], Expected()] = "random1200"
    """Split by random characters, as for MAML, or by alphabets, as in the data set itself."""
    rotations: Flag = True
    """Whether to add three classes for each character: turned by 90, 180 and 270 degrees."""


class Glyphs(Named):
    """Characters drawn with the fonts of matplotlib, on first use; nothing is downloaded."""

    name: Literal["glyphs"]


class Emoji(Named):
    """Emoji of nine vendors, in colour, from npm packages that you install; see the guide."""

    has_groups: ClassVar[bool] = True

    name: Literal["emoji"]
    image_size: ImageSize = None
    """The size to resize images to. 64×64 if it is left out."""
    manual_dir: OptionalFolderPath = None
    """The folder in which npm was run, for the first use: `downloads/manual` of the data's folder
    if it is left out."""


class Icons(Named):
    """Icons of 64 families, in grey, from npm packages that you install; see the guide."""

    has_groups: ClassVar[bool] = True

    name: Literal["icons"]
    image_size: ImageSize = None
    """The size to resize images to. 28×28 if it is left out."""
    manual_dir: OptionalFolderPath = None
    """The folder in which npm was run, for the first use: `downloads/manual` of the data's folder
    if it is left out."""


class Digits(Named):
    """The handwritten digits of scikit-learn."""

    name: Literal["digits"]


class MiniImagenet(Named):
    """miniImageNet, from your own folder `mini_imagenet`."""

    name: Literal["mini_imagenet"]


class Embeddings(Named):
    """Vectors that an encoder made of images, from your own files or those of LEO's authors.

    The network `identity` takes them as features.
    """

    name: Literal["embeddings"]
    features: Text
    """The folder of the files in the folder `embeddings` of the data's folder, for example
    `miniImageNet/center`; or an absolute path."""


class CifarFS(Named):
    """CIFAR-100, split for few-shot learning."""

    name: Literal["cifar_fs"]


class TensorFlowDataset(Named):
    """Any TensorFlow Datasets data set with an image and a class label."""

    name: Text
    """Name of the data set, for example `cifar100`."""
    image_size: ImageSize = None
    """The size to resize images to. Needed if the images differ in size."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _check_is_no_folder(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "image_format" in given:
            raise refusal(
                f"there is no folder {shown(given['name'])} in {Path.cwd()}, and a data set of "
                "TensorFlow Datasets takes no image_format. Give a path that begins with ./ or /."
            )
        return given


class ImageFormat(Options):
    """How image files become examples."""

    height: Pixels
    """Pixels."""
    width: Pixels
    """Pixels."""
    channels: Annotated[Literal[1, 3], Expected("1 (grey) or 3 (RGB)")] = 3
    """Grey or RGB."""
    invert: Flag = False
    """Whether dark becomes 1 and light 0, for ink on paper."""


class Folder(Named):
    """Your own images: a folder with one sub-folder per class.

    Its classes are split into 64 % for training, 16 % for validation and 20 % for the test. For a
    recipe that only tests, on classes that a learner was not trained on, give `split: all`.
    """

    name: FolderPath
    """Path of the folder, for example `./photos`."""
    image_format: ImageFormat | None = None
    """The size and colours that images are converted to. 84×84 RGB if it is left out."""
    split: Annotated[Literal["all"] | None, Expected('"all", or null')] = None
    """`all`: every class is a test class, and there is none to train on."""
    on_error: Annotated[Literal["raise", "skip"], Expected()] = "raise"
    """Whether image files that cannot be read stop the run with an error, or are left out."""


class Folders(Options):
    """Your own images in three folders, each with one sub-folder per class.

    No class may be in two of the folders.
    """

    train: FolderPath
    """Path of the folder with the training classes."""
    validation: FolderPath
    """Path of the folder with the validation classes."""
    test: FolderPath
    """Path of the folder with the test classes."""
    image_format: ImageFormat | None = None
    """The size and colours that images are converted to. 84×84 RGB if it is left out."""
    on_error: Annotated[Literal["raise", "skip"], Expected()] = "raise"
    """Whether image files that cannot be read stop the run with an error, or are left out."""

    @property
    def name(self) -> str:
        """The folders, for messages."""
        return f"{self.train}, {self.validation} and {self.test}"


class Sinusoid(Named):
    """Regression of sinusoids with random amplitudes and phases."""

    name: Literal["sinusoid"]


class Linear(Named):
    """Regression of straight lines with random slopes and intercepts."""

    name: Literal["linear"]


NAMED_DATA: dict[str, type[Named]] = {
    "omniglot": Omniglot,
    "glyphs": Glyphs,
    "emoji": Emoji,
    "icons": Icons,
    "digits": Digits,
    "mini_imagenet": MiniImagenet,
    "embeddings": Embeddings,
    "cifar_fs": CifarFS,
    "sinusoid": Sinusoid,
    "linear": Linear,
}
REGRESSION_DATA = ("sinusoid", "linear")


FOLDERS = ("train", "validation", "test")


def source_of(name: str) -> str:
    """Returns which source a data name stands for: itself, "folder" or "tfds"."""
    return name if name in NAMED_DATA else resolve(name).kind


def _is_folders(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "name" not in value and any(split in value for split in FOLDERS)
    return isinstance(value, Folders)


def _check(value: Any) -> Any:
    if not _is_folders(value):
        name_of(value)
    return value


def _tag(value: Any) -> str:
    return "folders" if _is_folders(value) else source_of(name_of(value))


ClassData: TypeAlias = Annotated[
    Annotated[Omniglot, Tag("omniglot")]
    | Annotated[Glyphs, Tag("glyphs")]
    | Annotated[Emoji, Tag("emoji")]
    | Annotated[Icons, Tag("icons")]
    | Annotated[Digits, Tag("digits")]
    | Annotated[MiniImagenet, Tag("mini_imagenet")]
    | Annotated[Embeddings, Tag("embeddings")]
    | Annotated[CifarFS, Tag("cifar_fs")]
    | Annotated[Folder, Tag("folder")]
    | Annotated[Folders, Tag("folders")]
    | Annotated[TensorFlowDataset, Tag("tfds")],
    Discriminator(_tag),
    BeforeValidator(_check),
]
RegressionData: TypeAlias = Annotated[
    Annotated[Sinusoid, Tag("sinusoid")] | Annotated[Linear, Tag("linear")],
    Discriminator(_tag),
    BeforeValidator(_check),
]


# === Episodes ===


class ClassEpisodes(Options):
    """The options of classification episodes."""

    n_way: Ways = 5
    """Classes per episode."""
    n_shot: Size = 1
    """Support examples per class."""
    n_query: Size = 15
    """Queries per class."""
    meta_batch_size: MetaBatchSize = 4
    """Episodes per meta-batch."""
    augment: Augment = None
    """Layers that change each image at random; those of meta-training are for it alone."""
    support_groups: GroupNames = None
    """Groups to draw support examples from; by default all but `query_groups`."""
    query_groups: GroupNames = None
    """Groups to draw queries from; by default all but `support_groups`."""
    n_unlabelled: ExamplesOrNone = 0
    """Unlabelled examples per class, for MetaGAN; those of meta-training are for it alone."""
    labelled_fraction: OptionalFraction = None
    """Fraction of each class's examples whose labels are used; unlabelled examples are drawn from
    the others. That of meta-training is for it alone."""


class RegressionEpisodes(Options):
    """The sizes of regression tasks."""

    n_shot: Size = 10
    """Support points per task."""
    n_query: Size = 10
    """Queries per task."""
    meta_batch_size: MetaBatchSize = 25
    """Tasks per meta-batch."""
