"""Entry point of the `tfmeta` command: silences TensorFlow, which `import tfmeta` starts."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


def main() -> int:
    """Runs the command line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("absl", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _held_back_stderr():
        from tfmeta.cli import main as run
    return run()


@contextlib.contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Holds stderr back, and shows it only if an exception passes.

    TensorFlow's libraries log from C++ while they load, before any setting is read.
    """
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
