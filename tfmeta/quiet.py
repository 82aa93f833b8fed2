"""TensorFlow without the messages that it logs while it starts."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Silences TensorFlow; wrap this around the first import of TensorFlow.

    TensorFlow's libraries log from C++ while they load, before any setting is read. So all that is
    written to stderr is held back meanwhile, and shown only if an exception passes. Afterwards,
    TensorFlow's C++ code logs fatal errors only, unless `TF_CPP_MIN_LOG_LEVEL` is set.

    Example:

    >>> with quiet_tensorflow():
    ...     import tensorflow as tf
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("absl", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
