"""Checks image files, and reads them inside `tf.data` when an episode needs them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from tfmeta.data import decoding
from tfmeta.data.decoding import Header, UnreadableImageError
from tfmeta.data.images import ImageFormat, decode_plain, upright
from tfmeta.threads import n_cores

# Names the operations that read files, so that an error of theirs can be told from others. The
# number is that of the reader, because several data sets may be in use.
SCOPE = "read_image_file_of_reader_{}n"
_NUMBERS = itertools.count()

# A progress bar is shown for more files than that.
MOST_WITHOUT_BAR = 2000
# Files that are given to the threads at once.
CHUNK = 4096

T = TypeVar("T")


class ImageReader:
    """A function of rows, for `ClassDataset`: reads image files inside `tf.data`.

    PNG and JPEG files in grey or RGB are decoded by TensorFlow and turned upright; others by
    Pillow, whose decoders run in parallel, too.

    Args:
        files: sequence of Path. The files.
        headers: sequence of Header. How each is decoded.
        image_format: ImageFormat. The size, channels and colour to bring the images to.
    """

    def __init__(
        self, files: Sequence[Path], headers: Sequence[Header], image_format: ImageFormat
    ) -> None:
        self.files = list(files)
        # As bytes, because a name need not be UTF-8.
        self._paths = [os.fsencode(file) for file in files]
        self.image_format = image_format
        self._by_tensorflow = np.array([h.by_tensorflow for h in headers], bool)
        self._orientation = np.array([h.orientation for h in headers], np.int32)
        self._tensors: tuple[tf.Tensor, ...] | None = None
        self._scope = SCOPE.format(next(_NUMBERS))
        _READERS.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_tensors": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._scope = SCOPE.format(next(_NUMBERS))
        _READERS.add(self)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, rows: tf.Tensor) -> tf.Tensor:
        """Reads images.

        Args:
            rows: int64 `[N]`. Positions in `files`.

        Returns:
            float32 `[N, height, width, channels]` in [0, 1].
        """
        if self._tensors is None:
            # Outside of the graph of a data set, which would hold a copy for each use.
            with tf.init_scope(), tf.device("CPU"):
                self._tensors = (
                    tf.constant(self._paths),
                    tf.constant(self._by_tensorflow),
                    tf.constant(self._orientation),
                )
        paths, by_tensorflow, orientation = self._tensors

        def decode_with_tensorflow(row: tf.Tensor) -> tf.Tensor:
            image = decode_plain(tf.io.read_file(paths[row]), self.image_format.channels)
            return upright(image, 1 if (self._orientation == 1).all() else orientation[row])

        def read(row: tf.Tensor) -> tf.Tensor:
            with tf.name_scope(self._scope):
                if self._by_tensorflow.all():
                    image = decode_with_tensorflow(row)
                else:
                    image = tf.cond(
                        by_tensorflow[row],
                        lambda: decode_with_tensorflow(row),
                        lambda: self._decode_with_pillow(paths[row]),
                    )
                return self.image_format.from_pixels(image)

        pixels = tf.map_fn(read, rows, fn_output_signature=tf.uint8, parallel_iterations=16)
        return tf.cast(pixels, tf.float32) / 255

    def _decode_with_pillow(self, path: tf.Tensor) -> tf.Tensor:
        channels = self.image_format.channels

        def decode(path: bytes | np.ndarray) -> np.ndarray:
            # In eager mode, TensorFlow gives an array of one object.
            file = Path(os.fsdecode(path if isinstance(path, bytes) else path.item()))
            with decoding.naming(file):
                return decoding.decode(file.read_bytes(), channels)

        pixels = tf.numpy_function(decode, [path], tf.uint8)
        return tf.ensure_shape(pixels, [None, None, channels])

    def explain(self, error: tf.errors.OpError) -> None:
        """Raises an error that names a broken file, if such a file is why `tf.data` failed.

        TensorFlow's own error does not name the file. So all are read, until one fails.

        Args:
            error: tf.errors.OpError. What was raised.

        Raises:
            UnreadableImageError: If one of the files cannot be read.
        """
        if self._scope in str(error):
            check_files(self.files, functools.partial(read_file, image_format=self.image_format))


_READERS: weakref.WeakSet[ImageReader] = weakref.WeakSet()


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns an error of `tf.data` about an image file into one that names the file.

    Raises:
        UnreadableImageError: If TensorFlow fails in the block because an image cannot be read.
    """
    try:
        yield
    except tf.errors.OpError as error:
        for reader in list(_READERS):
            reader.explain(error)
        raise


def read_file(file: Path, image_format: ImageFormat) -> np.ndarray:
    """Reads one image file.

    Args:
        file: Path. The file.
        image_format: ImageFormat. The size, channels and colour to bring it to.

    Returns:
        uint8 `[height, width, channels]`.

    Raises:
        UnreadableImageError: If it cannot be read. The message names it.
    """
    with decoding.naming(file):
        pixels: np.ndarray = image_format.from_content(file.read_bytes()).numpy()
        return pixels


def read_files(
    files: Sequence[Path], image_format: ImageFormat, *, n_at_once: int, verbose: bool = False
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Reads image files some at a time.

    Args:
        files: sequence of Path. The files.
        image_format: ImageFormat. The size, channels and colour to bring them to.
        n_at_once: int. How many files to read at a time.
        verbose: bool. Whether to show a progress bar on stderr. Defaults to False.

    Yields:
        The names of `n_at_once` files, or fewer at the end, and their pixels: float32
        `[N, height, width, channels]` in [0, 1].

    Raises:
        UnreadableImageError: If a file cannot be read. The message names it.
    """
    from rich.console import Console
    from rich.progress import track

    starts = range(0, len(files), n_at_once)
    console = Console(file=sys.stderr)
    bar = track(starts, "Reading images", console=console, transient=True, disable=not verbose)
    for start in bar:
        part = files[start : start + n_at_once]
        pixels = np.stack([read_file(file, image_format) for file in part])
        yield [str(file) for file in part], pixels.astype(np.float32) / 255


def check_file(file: Path, image_format: ImageFormat) -> Header:
    """Reads the header of a file; reads all of it if the header does not tell that it is whole.

    Args:
        file: Path. The file.
        image_format: ImageFormat. The size, channels and colour to bring it to.

    Raises:
        UnreadableImageError: If it cannot be read. The message names it.
    """
    header, is_certain = decoding.read_header(file)
    if not is_certain:
        read_file(file, image_format)
    return header


def check_files(
    files: Sequence[Path],
    check: Callable[[Path], T],
    on_broken: Callable[[Path, UnreadableImageError], None] | None = None,
) -> list[T | None]:
    """Checks files in parallel, with a progress bar if there are many and stderr is a terminal.

    Args:
        files: sequence of Path. The files.
        check: function of a Path. Raises an `UnreadableImageError` if the file cannot be read.
        on_broken: function of a file and its error, or None. Called for each such file. Defaults
            to None: the error is raised.

    Returns:
        What `check` returned for each file; None if it cannot be read.

    Raises:
        UnreadableImageError: For the first file that cannot be read, without `on_broken`.
    """

    def checked(file: Path) -> T | UnreadableImageError:
        try:
            return check(file)
        except UnreadableImageError as error:
            return error

    results: list[T | None] = []
    with ThreadPoolExecutor(n_cores()) as pool:
        # In chunks, because the pool keeps an object for each file that it was given.
        found = itertools.chain.from_iterable(
            pool.map(checked, files[i : i + CHUNK]) for i in range(0, len(files), CHUNK)
        )
        for file, result in zip(files, _with_bar(found, len(files)), strict=True):
            if not isinstance(result, UnreadableImageError):
                results.append(result)
                continue
            if on_broken is None:
                pool.shutdown(wait=False, cancel_futures=True)
                raise result
            on_broken(file, result)
            results.append(None)
    return results


def _with_bar(results: Iterator[T], total: int) -> Iterator[T]:
    if total <= MOST_WITHOUT_BAR or not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(file=sys.stderr)
    yield from track(results, "Checking images", total, console=console, transient=True)
