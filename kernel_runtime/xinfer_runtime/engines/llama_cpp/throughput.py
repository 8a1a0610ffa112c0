"""Tokens per second, and seconds per step, lately."""

import threading
import time
from collections import deque
from collections.abc import Callable

_WINDOW = 5.0
_SHORTEST = 0.5
"""A rate over less than this would jump about."""


_STEP_WEIGHT = 0.05
"""Of one step in the mean."""


class Throughput:
    """Counted by the engine's thread, read by any other."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._steps: deque[tuple[float, int]] = deque()

    def count(self, tokens: int) -> None:
        """So many tokens were generated just now."""
        now = self._clock()
        with self._lock:
            self._steps.append((now, tokens))
            self._forget(now)

    def rate(self) -> float:
        """Tokens per second since generation began, at most over the window."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            if not self._steps:
                return 0.0
            return sum(tokens for _, tokens in self._steps) / max(now - self._steps[0][0], _SHORTEST)

    def _forget(self, now: float) -> None:
        while self._steps and self._steps[0][0] < now - _WINDOW:
            self._steps.popleft()


class StepTime:
    """Mean time of the last steps, some twenty of them, however long ago they were."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def count(self, seconds: float) -> None:
        """A step took so long."""
        self.seconds += (seconds - self.seconds) * _STEP_WEIGHT if self.seconds else seconds
