"""The workers' side of the comparison: answers a driver's requests, one JSON line each."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from work import Work


def timed(function: Callable[[], Any]) -> Callable[[int], list[float]]:
    """What does a function n times, and returns the seconds that each took."""

    def run(n: int) -> list[float]:
        seconds = []
        for _ in range(n):
            began = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - began)
        return seconds

    return run


def serve(
    contenders: dict[str, Callable[[Work], tuple[Callable[[int], list[float]], Any]]],
    describe: Callable[[], dict[str, Any]],
) -> None:
    """Answers until the input ends.

    Args:
        contenders: By name, what prepares a piece of work: it returns a function that does it n
            times and returns the seconds that each took, and a function that returns what to
            compare: loss and meta-gradient, or the predictions.
        describe: Returns the versions and settings.
    """
    prepared: dict[str, Any] = {}
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = None
        if request["do"] == "describe":
            answer = describe()
        elif request["do"] == "forget":
            prepared.clear()
        else:
            work, name = Work.of_json(request["work"]), request["contender"]
            if request["do"] == "check":
                np.savez(request["file"], *contenders[name](work)[1]())
            elif request["do"] == "prepare":
                prepared[name] = contenders[name](work)[0]
            elif request["do"] == "time":
                answer = prepared[name](request["n"])
        print(json.dumps(answer), file=answers, flush=True)
