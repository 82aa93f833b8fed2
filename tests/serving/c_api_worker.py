"""A process that runs a SavedModel without TensorFlow's Python, for tests that do import it.

As a script, with a SavedModel's folder: answers the requests on its standard input. Requests and
answers are pickled, so that arrays of bytes pass unchanged; both ends are ours.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import c_api
import numpy as np


class Worker:
    """A SavedModel in a process of its own, which ends with the `with` block.

    Args:
        folder: The folder that has `saved_model.pb`.

    Raises:
        c_api.TensorFlowError: It does not load.
    """

    def __init__(self, folder: str | Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.pid = self._process.pid
        try:
            self.signatures: dict[str, c_api.Signature] = self._answer()
        except BaseException:
            self._process.communicate()
            raise

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """As `c_api.SavedModel.run`."""
        assert self._process.stdin is not None
        pickle.dump((signature, inputs), self._process.stdin)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        answer = pickle.load(self._process.stdout)
        if isinstance(answer, Exception):
            raise answer
        return answer


def main(folder: str) -> None:
    """Answer requests until there are no more."""
    # A model that prints does not print into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(value: Any) -> None:
        pickle.dump(value, answers)
        answers.flush()

    try:
        model = c_api.SavedModel(folder)
    except Exception as error:
        answer(error)
        return
    answer(model.signatures)
    while True:
        try:
            signature, inputs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer(model.run(signature, inputs))
        except Exception as error:
            answer(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
