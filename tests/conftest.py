"""Settings of all tests, the tier of large ones, and fixtures that several folders share."""

import contextlib
import gc
import hashlib
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Set before TensorFlow is imported; the processes that tests start inherit it. Workers of
# pytest-xdist have about a core each, where several threads per operation cost 10 to 15 % more CPU
# time. Two operations at once were no slower than one, and with one at a time no race between the
# tasks of a meta-batch could show.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")


# === The tier of large tests ===

DAYS = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--large-day",
        type=int,
        metavar="DAY",
        help=f"of the tests marked large, run one of {DAYS} groups, whose turn is on this day: "
        "days since 1970, for example",
    )
    parser.addoption(
        "--seconds",
        type=float,
        metavar="SECONDS",
        help="start no further test after so long, and skip the rest",
    )


def pytest_configure(config: pytest.Config) -> None:
    seconds = config.getoption("--seconds")
    config.stash[DEADLINE] = None if seconds is None else time.monotonic() + seconds


DEADLINE = pytest.StashKey[float | None]()
LATE = "no time was left (--seconds)"


# Examples in docstrings that train or export, of what is like something in the default tier.
LARGE_EXAMPLES = {
    "AmortizedMAML",
    "BaselinePlusPlus",
    "CosinePrototypicalNetwork",
    "FineTuning",
    "LEO",
    "MAMLPlusPlus",
    "MAMLTRPO",
    "MahalanobisHead",
    "MatchingNetwork",
    "MetaGANMAML",
    "MetaGANRelationNetwork",
    "MetaLSTM",
    "MetaSGD",
    "ProMP",
    "PrototypicalNetwork",
    "RelationNetwork",
    "RidgeHead",
    "renew_servable",
    "write_settings",
}


@pytest.hookimpl(tryfirst=True, specname="pytest_collection_modifyitems")
def mark_large_examples(items: list[pytest.Item]) -> None:
    # Not in pytest_itemcollected, which is not told of what lies outside of this folder.
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.name.rpartition(".")[2] in LARGE_EXAMPLES:
            item.add_marker(pytest.mark.large)


def pytest_collection_finish() -> None:
    """Takes what was imported and collected out of the reach of the garbage collector.

    Tracing makes many objects, and each collection walks through all of TensorFlow's. It took 8 %
    of the CPU time of one file (test_side_effects.py).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the group of the day, and starts with other files each day.

    If time runs out, those at the end do not run, and they should not always be the same ones.
    """
    day = config.getoption("--large-day")
    if day is None:
        return

    def has_its_turn(item: pytest.Item) -> bool:
        is_large = item.get_closest_marker("large") is not None
        return not is_large or zlib.crc32(item.nodeid.encode()) % DAYS == day % DAYS

    config.hook.pytest_deselected(items=[item for item in items if not has_its_turn(item)])
    items[:] = sorted(
        filter(has_its_turn, items),
        key=lambda item: zlib.crc32(f"{day} {item.nodeid.partition('::')[0]}".encode()),
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    deadline = item.config.stash[DEADLINE]
    if deadline is not None and time.monotonic() > deadline:
        pytest.skip(LATE)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if terminalreporter.config.stash[DEADLINE] is None:
        return
    reports = terminalreporter.stats
    late = sum(LATE in str(report.longrepr) for report in reports.get("skipped", []))
    ran = sum(len(reports.get(outcome, [])) for outcome in ("passed", "failed", "error"))
    terminalreporter.write_line(f"{ran} tests ran; {late} did not, because time ran out.")


# === Graphs are run as they were traced ===

# TensorFlow's graph optimizer took a fifth of the CPU time of one file (test_side_effects.py), for
# graphs that run once or twice. What users get runs with it: docs, presets and their cards,
# examples in docstrings, what is about speed or compiled steps, and all large tests.
OPTIMIZED = (
    "test_cards",
    "test_docs",
    "test_old_files",
    "test_presets",
    "test_presets_evaluated",
    "test_preset_servables",
    "test_speed_changes_nothing",
    "test_task_mapping",
)


def optimize_graphs(are_optimized: bool) -> None:
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        tensorflow.config.optimizer.set_experimental_options(
            {"disable_meta_optimizer": not are_optimized}
        )


@pytest.hookimpl(tryfirst=True, specname="pytest_runtest_setup")
def leave_graphs_as_traced(item: pytest.Item) -> None:
    is_large = item.get_closest_marker("large") is not None
    optimize_graphs(is_large or item.path.stem in OPTIMIZED)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    optimize_graphs(True)


# === Random numbers ===

BEGINNINGS: dict[int, Any] = {}


@pytest.fixture(autouse=True)
def same_numbers_in_any_order(request: pytest.FixtureRequest) -> None:
    """A module's `RNG` starts anew for each test, whichever tests ran before it in this process."""
    rng = getattr(getattr(request.node, "module", None), "RNG", None)
    if isinstance(rng, np.random.Generator):
        bits = rng.bit_generator
        bits.state = BEGINNINGS.setdefault(id(rng), bits.state)


# === Data ===


@pytest.fixture(scope="session")
def omniglot_dir() -> Path:
    """A directory of TensorFlow Datasets that has Omniglot.

    Without one, the test is skipped, or fails if TFMETA_REQUIRE_OMNIGLOT is set.
    """
    repository = Path(__file__).resolve().parents[1]
    candidates = [repository.parent / "shared" / "tfds"]
    if os.environ.get("TFDS_DATA_DIR"):
        candidates.insert(0, Path(os.environ["TFDS_DATA_DIR"]))
    for folder in candidates:
        if (folder / "omniglot").is_dir():
            return folder
    message = "neither TFDS_DATA_DIR nor ../shared/tfds has a folder `omniglot`"
    if os.environ.get("TFMETA_REQUIRE_OMNIGLOT"):
        pytest.fail(f"TFMETA_REQUIRE_OMNIGLOT is set, but {message}")
    pytest.skip(f"needs the real Omniglot: {message}")


def built_dir(name: str) -> Path:
    """Returns a directory of TensorFlow Datasets in which a data set is built; else skips."""
    folder = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    if not (folder / name).is_dir():
        pytest.skip(f"needs the data set {name}, which is built from npm packages: not in {folder}")
    return folder


@pytest.fixture(scope="session")
def emoji_dir() -> Path:
    """A directory of TensorFlow Datasets that has the emoji."""
    return built_dir("emoji")


@pytest.fixture(scope="session")
def icons_dir() -> Path:
    """A directory of TensorFlow Datasets that has the icons."""
    return built_dir("icons")


@pytest.fixture(scope="session")
def glyphs_dir(pytestconfig: pytest.Config) -> Path:
    """A directory of TensorFlow Datasets with the glyphs.

    They take half a minute to draw, so pytest's cache keeps them for later runs, by the code and
    the libraries that draw and write them. Only large tests should need them.
    """
    return drawn_glyphs(pytestconfig, "glyphs")


@pytest.fixture(scope="session")
def few_glyphs_dir(pytestconfig: pytest.Config) -> Path:
    """A directory like `glyphs_dir`, with fewer classes: of Latin, Greek and Cyrillic characters.

    It is read while `some_glyphs` is in effect.
    """
    with some_glyphs():
        return drawn_glyphs(pytestconfig, "few-glyphs")


@pytest.fixture(scope="session")
def few_glyphs_builder(few_glyphs_dir: Path) -> Any:
    """The few glyphs as a data set of TensorFlow Datasets."""
    from tfmeta.data import glyphs

    with some_glyphs():
        return glyphs.Glyphs(data_dir=few_glyphs_dir)


@pytest.fixture
def few_glyphs(few_glyphs_dir: Path) -> Iterator[Path]:
    """Lets "glyphs" be the few of `few_glyphs_dir`, and returns that."""
    with some_glyphs():
        yield few_glyphs_dir


@contextlib.contextmanager
def some_glyphs() -> Iterator[None]:
    """The data set of glyphs has fewer classes meanwhile."""
    from tfmeta.data import glyphs

    def some_faces() -> tuple[list[Any], dict[int, list[int]]]:
        fonts, coverage = load_faces()
        # Scripts that share many shapes, so that look-alikes are found among them.
        known = {p: faces for p, faces in coverage.items() if p < 0x100 or 0x370 <= p < 0x460}
        return fonts, known

    load_faces = glyphs.load_faces
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "NUM_CLASSES", 100)
        patch.setattr(glyphs, "load_faces", some_faces)
        yield


def drawn_glyphs(pytestconfig: pytest.Config, name: str) -> Path:
    """Draws glyphs into a folder of pytest's cache, unless they are there."""
    from filelock import FileLock

    from tfmeta.data import glyph_drawing, glyphs

    code = b"".join(Path(module.__file__).read_bytes() for module in (glyphs, glyph_drawing))
    digest = hashlib.sha256(code)
    for library in ("matplotlib", "pillow", "tensorflow-datasets"):
        digest.update(f"{library} {metadata.version(library)}".encode())
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"{name}-{digest.hexdigest()[:16]}")
    with FileLock(folder.with_suffix(".lock")):
        glyphs.Glyphs(data_dir=folder).download_and_prepare()
    return folder


# === Stand-ins for photographs ===


@pytest.fixture(scope="session")
def mini_imagenet_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a tiny miniImageNet: 6, 5 and 5 classes of six JPEG files each.

    Image i of class k, counted over the three files, has red 40 + 10 k and green 20 + 30 i on
    average; blue is noise. The last image of each class is larger than 84×84.
    """
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    images = folder / "mini_imagenet" / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    first = 0
    for name, n_classes in (("train", 6), ("val", 5), ("test", 5)):
        lines = ["filename,label"]
        for i in range(6):  # As few users' files would be: the classes take turns.
            for k in range(first, first + n_classes):
                shape = (120, 100) if i == 5 else (84, 84)
                noise = rng.integers(-20, 21, (*shape, 3))
                pixels = np.clip(noise + np.array([40 + 10 * k, 20 + 30 * i, 128]), 0, 255)
                file = f"n{k:08d}{i:08d}.jpg"
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(images / file, quality=95, subsampling=0)
                lines.append(f"{file},n{k:08d}")
        (folder / "mini_imagenet" / f"{name}.csv").write_text("\n".join(lines) + "\n")
        first += n_classes
    return folder


@pytest.fixture(scope="session")
def cifar100_names() -> list[str]:
    """The lines of `fine_label_names.txt` in CIFAR-100's archive."""
    names = """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
        crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
        keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
        mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
        plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
        television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """
    return names.split()


@pytest.fixture(scope="session")
def cifar100_dir(tmp_path_factory: pytest.TempPathFactory, cifar100_names: list[str]) -> Path:
    """A directory of TensorFlow Datasets with a tiny CIFAR-100, prepared by its own builder.

    The archive in CIFAR-100's binary format has, of each class, five images for training and one
    for the test: of label k, image i is k in red, 40 i in green, and noise in blue.
    """
    import tensorflow_datasets as tfds

    archive = tmp_path_factory.mktemp("archive") / "cifar-100-binary"
    archive.mkdir()
    (archive / "fine_label_names.txt").write_text("\n".join(cifar100_names) + "\n")
    coarse = "\n".join(f"coarse{k}" for k in range(20))
    (archive / "coarse_label_names.txt").write_text(coarse + "\n")
    rng = np.random.default_rng(0)
    for name, numbers in (("train.bin", range(5)), ("test.bin", [5])):
        with (archive / name).open("wb") as file:
            for i in numbers:
                for k in rng.permutation(100):
                    blue = rng.integers(0, 256, 1024)
                    planes = np.concatenate([np.full(1024, k), np.full(1024, 40 * i), blue])
                    file.write(bytes([k % 20, k]) + planes.astype(np.uint8).tobytes())
    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tfds.download.DownloadManager,
            "download_and_extract",
            lambda self, url: str(archive.parent),
        )
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        tfds.builder("cifar100", data_dir=folder).download_and_prepare(download_config=config)
    return folder


# === Learners on tiny tasks ===


@pytest.fixture
def float64() -> Iterator[None]:
    """Keras's losses, too, compute in its default float type."""
    import keras

    for dtype in ("float64", "float32"):
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        if dtype == "float64":
            yield


@pytest.fixture
def meta_gradient() -> Callable[..., list[np.ndarray]]:
    """The function `learners_made_small.meta_gradient`."""
    from learners_made_small import meta_gradient

    return meta_gradient


@pytest.fixture
def numeric_gradient() -> Callable[..., list[np.ndarray]]:
    """A function: central differences of `function(*arrays)`, by each element of each array."""

    def central(function: Callable[..., float], *arrays: Any) -> list[np.ndarray]:
        arrays = tuple(np.array(a, "float64") for a in arrays)
        gradients = [np.zeros_like(a) for a in arrays]
        for array, gradient in zip(arrays, gradients, strict=True):
            for index in np.ndindex(array.shape):
                value = array[index]
                sides = []
                for step in (1e-6, -1e-6):
                    array[index] = value + step
                    sides.append(function(*arrays))
                array[index] = value
                gradient[index] = (sides[0] - sides[1]) / 2e-6
        return gradients

    return central
