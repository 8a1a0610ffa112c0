"""Whether a replica is trusted with requests: a circuit breaker, as a state machine without I/O.

A replica whose link was lost twice within a minute is put aside, for 1, 2, 4 ... 30 s as it goes on. After that time
one request at a time goes there as a probe; the first one that gets an answer makes the replica as good as any other.
Times are in seconds of a monotonic clock.
"""

from enum import StrEnum
from typing import Final

FAILURES: Final = 2
WINDOW: Final = 60.0
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
PROBE_SECONDS: Final = 10.0
"""After which a probe that nothing was heard of is repeated."""
_SAME_FAILURE: Final = 0.5
"""All requests on a link learn of its loss at about the same time."""


class BreakerState(StrEnum):
    CLOSED = "closed"
    """It gets requests like any other."""
    OPEN = "open"
    """It is put aside."""
    HALF_OPEN = "half_open"
    """Its pause is over; a probe tells."""


class Breaker:
    """One per replica. Without failures it admits everything."""

    def __init__(self) -> None:
        self._failures = 0
        self._failed_at = 0.0
        self._pause = FIRST_PAUSE
        self._closed_until: float | None = None
        self._probe_at: float | None = None

    def admits(self, now: float) -> bool:
        """Whether a request may go there now."""
        if self._closed_until is None:
            return True
        if now < self._closed_until:
            return False
        return self._probe_at is None or now - self._probe_at >= PROBE_SECONDS

    def state(self, now: float) -> BreakerState:
        if self._closed_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._closed_until else BreakerState.HALF_OPEN

    def sent(self, now: float) -> None:
        """A request goes there."""
        if self._closed_until is not None and now >= self._closed_until:
            self._probe_at = now

    def succeeded(self) -> None:
        """An answer came from there."""
        if self._probe_at is not None:
            self._failures = 0
            self._pause = FIRST_PAUSE
            self._closed_until = self._probe_at = None

    def failed(self, now: float) -> None:
        """The link to it was lost with a request on it."""
        same = self._failures > 0 and now - self._failed_at < _SAME_FAILURE and self._probe_at is None
        if same:
            return
        if now - self._failed_at > WINDOW and self._closed_until is None:
            self._failures = 0
        self._failures += 1
        self._failed_at = now
        if self._failures >= FAILURES:
            self._closed_until = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._probe_at = None
