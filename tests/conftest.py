"""What tests of several folders share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def omniglot_dir() -> Path:
    """A directory of TensorFlow Datasets that has Omniglot; without one, the test is skipped."""
    repository = Path(__file__).resolve().parents[1]
    candidates = [repository.parent / "shared" / "tfds"]
    if os.environ.get("TFDS_DATA_DIR"):
        candidates.insert(0, Path(os.environ["TFDS_DATA_DIR"]))
    for folder in candidates:
        if (folder / "omniglot").is_dir():
            return folder
    pytest.skip(
        "needs the real Omniglot: neither TFDS_DATA_DIR nor ../shared/tfds has a folder `omniglot`"
    )


@pytest.fixture(scope="session")
def glyphs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of TensorFlow Datasets with the glyphs, made once for all tests."""
    from tfmeta.data.glyphs import Glyphs

    folder = tmp_path_factory.mktemp("tfds")
    Glyphs(data_dir=folder).download_and_prepare()
    return folder
