"""What gateways say of the use of a model, and what follows from it: more or fewer replicas, sleep, or eviction."""

from dataclasses import dataclass, field

from xinfer_runtime.cluster.protocol import Demand

FORGET_SECONDS = 30.0
"""After which the demand of a gateway that says nothing any more does not count: it has ended."""
UP_SECONDS = 3.0
"""How long requests have to wait for too long before a replica is added: a burst is over by then."""
DOWN_SECONDS = 60.0
"""How long there has to be slack before one is taken away, at first."""
LONGEST_DOWN_SECONDS = 900.0
SLACK_SHARE = 0.25
"""Of the target: below it, requests wait so little that fewer replicas may do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many replicas there may be, and how many seconds requests may wait for their first token."""

    least: int
    most: int
    target: float


@dataclass(slots=True)
class ModelDemand:
    """The use of one model over all gateways. Times are in seconds, of one clock."""

    last_used: float
    _gateways: dict[str, tuple[Demand, float]] = field(default_factory=dict)
    _pressed_since: float | None = None
    _slack_since: float | None = None
    _down_after: float = DOWN_SECONDS
    _taken_away_at: float | None = None

    def seen(self, gateway: str, demand: Demand, now: float) -> None:
        self._gateways[gateway] = demand, now
        if demand.requests:
            self.last_used = now

    def requests(self, now: float) -> int:
        """Requests in flight."""
        return sum(demand.requests for demand in self._current(now))

    def waited(self, now: float) -> float:
        """The longest that a request waits for its first token, or did since the report before the last."""
        return max((demand.waited for demand in self._current(now)), default=0.0)

    def idle_seconds(self, now: float) -> float:
        return 0.0 if self.requests(now) else max(0.0, now - self.last_used)

    def replicas(self, current: int, limits: Limits, now: float, *, starting: bool) -> int:
        """How many replicas there should be, of `current` now; while one is `starting`, no more.

        It adds one when requests have waited beyond the target for `UP_SECONDS`, as many as there are where they wait
        four times as long. It takes one away after `DOWN_SECONDS` of slack, and waits twice as long the next time where
        that turns out to have been one too many.
        """
        waited = self.waited(now)
        pressed, slack = waited > limits.target, waited <= limits.target * SLACK_SHARE
        self._pressed_since = _since(self._pressed_since, now) if pressed else None
        self._slack_since = _since(self._slack_since, now) if slack else None
        wanted = min(max(current, limits.least), limits.most)
        if wanted != current or starting:
            return wanted
        if self._pressed_since is not None and now - self._pressed_since >= UP_SECONDS and current < limits.most:
            if self._taken_away_at is not None and now - self._taken_away_at < 2 * self._down_after:
                self._down_after = min(2 * self._down_after, LONGEST_DOWN_SECONDS)
            self._pressed_since = self._taken_away_at = None
            return min(current * 2 if waited > 4 * limits.target else current + 1, limits.most)
        if self._slack_since is not None and now - self._slack_since >= self._down_after and current > limits.least:
            self._slack_since, self._taken_away_at = None, now
            return current - 1
        return current

    def _current(self, now: float) -> list[Demand]:
        self._gateways = {name: seen for name, seen in self._gateways.items() if now - seen[1] < FORGET_SECONDS}
        return [demand for demand, _ in self._gateways.values()]


def _since(before: float | None, now: float) -> float:
    return now if before is None else before
