"""Any data set of TensorFlow Datasets, by its name."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfmeta.data import ClassDataset, load

PARTS = ("train", "validation", "test")


def examples(data: ClassDataset, name: str) -> np.ndarray:
    return data.fetch(tf.constant(data.rows[data.class_names.index(name)])).numpy()


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Eleven classes of three images in two splits; class and image are the red and green."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE: tuple[int | None, int | None, int] = (6, 5, 3)
    LABEL = "label"

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=self.SHAPE)
        label = tfds.features.ClassLabel(names=[f"name{k}" for k in range(11)])
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"image": image, self.LABEL: label})
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(2), "test": self._generate_examples(1)}

    def _generate_examples(self, n: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in range(11 * n):
            height, width = (size or 6 + i % 2 for size in self.SHAPE[:2])
            pixels = np.full((height, width, 3), (10 * (i % 11), i // 11 + n, 7), np.uint8)
            yield i, {"image": pixels, self.LABEL: i % 11}


class TfmetaTestFixed(Tiny):
    """All images have one size."""


class TfmetaTestVarying(Tiny):
    """The images differ in size."""

    SHAPE = (None, None, 3)


class TfmetaTestUnlabelled(Tiny):
    """There is no feature named "label"."""

    LABEL = "kind"


class TfmetaTestPartlyLabelled(Tiny):
    """A second split has no labels."""

    def _generate_examples(self, n: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, example in super()._generate_examples(n):
            yield i, {**example, self.LABEL: -1 if n == 1 else example[self.LABEL]}


class TfmetaTestRetrying(Tiny):
    """Notes how often a server that does not answer would be asked."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        from tensorflow_datasets.core.download import downloader

        raise tfds.download.DownloadError(f"gave up after {downloader.MAX_RETRIES}")


class TfmetaTestUnreachable(Tiny):
    """The download fails."""

    ERROR: Callable[[str], Exception] = tfds.download.DownloadError

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        raise self.ERROR("no route to host")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tfds")


def test_any_tfds_data_set_is_loaded_by_name(data_dir: Path) -> None:
    data = load("tfmeta_test_fixed", data_dir=data_dir, split="all")
    assert sorted(data.class_names) == sorted(f"name{k}" for k in range(11))
    assert data.example_shape == (6, 5, 3)
    for k in range(11):
        x = examples(data, f"name{k}")
        assert x.shape == (3, 6, 5, 3), "the data set's own splits are joined"
        np.testing.assert_array_equal(x[..., 0], np.full((3, 6, 5), 10 * k, "float32") / 255)
        np.testing.assert_allclose(np.sort(x[:, 0, 0, 1]) * 255, [1, 2, 3], rtol=1e-6)


def test_splits_of_a_tfds_data_set_are_disjoint_and_cover_all(data_dir: Path) -> None:
    parts = [load("tfmeta_test_fixed", data_dir=data_dir, split=part) for part in PARTS]
    assert [len(part) for part in parts] == [7, 2, 2]
    assert len({name for part in parts for name in part.class_names}) == 11
    assert load("tfmeta_test_fixed", data_dir=data_dir).class_names == parts[0].class_names


def test_a_tfds_data_set_is_resized(data_dir: Path) -> None:
    data = load("tfmeta_test_fixed", data_dir=data_dir, image_size=(9, 4))
    assert data.example_shape == data.image_format.shape == (9, 4, 3)
    assert examples(data, data.class_names[0]).shape == (3, 9, 4, 3)


def test_images_that_differ_in_size_need_one(data_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"differ in size: give image_size=\(height, width\)"):
        load("tfmeta_test_varying", data_dir=data_dir)
    data = load("tfmeta_test_varying", data_dir=data_dir, split="all", image_size=(7, 7))
    x = examples(data, "name3")
    np.testing.assert_array_equal(x[..., 0], np.full((3, 7, 7), 30, "float32") / 255)


def test_a_tfds_data_set_without_labels_is_told(data_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"has the features \['image', 'kind'\].*pass arrays"):
        load("tfmeta_test_unlabelled", data_dir=data_dir)


@pytest.mark.parametrize(
    "error", [tfds.download.DownloadError, OSError, ConnectionResetError, TimeoutError]
)
def test_what_cannot_be_downloaded_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setattr(TfmetaTestUnreachable, "ERROR", error)
    for _ in range(2):  # A failed attempt leaves nothing that passes for the data set.
        with pytest.raises(ConnectionError, match="could not be downloaded") as told:
            load("tfmeta_test_unreachable", data_dir=tmp_path)
        for part in (
            "'tfmeta_test_unreachable'",
            str(tmp_path),
            error.__name__,
            "no route to host",
        ):
            assert part in str(told.value)
        assert "Give data_dir=, or set TFDS_DATA_DIR" in str(told.value)


def test_examples_without_a_label_are_left_out_and_counted(data_dir: Path) -> None:
    with pytest.warns(UserWarning, match=r"Left out 11 examples .* no label \(-1\)"):
        data = load("tfmeta_test_partly_labelled", data_dir=data_dir, split="all")
    assert len(data) == 11
    for k in range(11):
        x = examples(data, f"name{k}")
        assert (np.round(x[..., 0] * 255) == 10 * k).all()
        assert len(x) == 2


def test_a_server_that_does_not_answer_is_given_up_within_seconds(data_dir: Path) -> None:
    from tensorflow_datasets.core.download import downloader

    before = downloader.MAX_RETRIES
    with pytest.raises(ConnectionError, match="gave up after 4"):
        load("tfmeta_test_retrying", data_dir=data_dir)
    assert before == downloader.MAX_RETRIES
