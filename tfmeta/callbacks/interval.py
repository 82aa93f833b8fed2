"""The interval between two checkpoints within an epoch."""

from __future__ import annotations

import re
import time


class Interval:
    """How often a run saves within an epoch.

    Args:
        every: int or str. So many steps, or so many seconds ("60s").

    Raises:
        ValueError: If it is neither.
    """

    def __init__(self, every: int | str) -> None:
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?s", every) if isinstance(every, str) else None
        self.steps = every if isinstance(every, int) and not isinstance(every, bool) else None
        self.seconds = float(match[1]) if match else None
        if (self.steps or self.seconds or 0) <= 0:
            raise ValueError(
                "checkpoint_every must be a number of steps, such as 100, or of seconds, such as "
                f'"60s"; got {every!r}.'
            )
        self.begin(0)

    def begin(self, step: int) -> None:
        """Begins an interval.

        Args:
            step: int. The number of finished steps of the epoch.
        """
        self._step, self._time = step, time.monotonic()

    def is_over(self, step: int) -> bool:
        """Returns whether the interval is over after a number of finished steps of the epoch."""
        if self.steps is not None:
            return step - self._step >= self.steps
        return self.seconds is not None and time.monotonic() - self._time >= self.seconds
