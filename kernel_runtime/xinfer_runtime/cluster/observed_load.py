"""What gateways last said of the load of replicas, for the page in the Dask dashboard; nothing is decided by it."""

from collections.abc import Callable
from time import monotonic
from typing import Final

from xinfer_runtime.cluster.protocol import LoadReport
from xinfer_runtime.models import EngineStats

FORGET_SECONDS: Final = 30.0
WATCHED_SECONDS: Final = 10.0
"""For how long after somebody looked gateways go on telling often."""


class ObservedLoad:
    """Each gateway has a link to each replica, so what the last one said of a replica stands for all."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._replicas: dict[str, tuple[EngineStats, float]] = {}
        self._queued: dict[str, tuple[dict[str, int], float]] = {}
        self._looked = -WATCHED_SECONDS

    def note(self, report: LoadReport) -> None:
        now = self._clock()
        self._replicas.update((replica, (stats, now)) for replica, stats in report.replicas.items())
        self._queued[report.gateway] = report.queued, now
        self._replicas = {name: seen for name, seen in self._replicas.items() if now - seen[1] < FORGET_SECONDS}
        self._queued = {name: seen for name, seen in self._queued.items() if now - seen[1] < FORGET_SECONDS}

    def look(self) -> None:
        """Somebody looks at the page."""
        self._looked = self._clock()

    @property
    def watched(self) -> bool:
        return self._clock() - self._looked < WATCHED_SECONDS

    def of(self, replica: str) -> EngineStats | None:
        """What was last said of the replica, None where that is nothing or long ago."""
        stats, seen = self._replicas.get(replica, (None, 0.0))
        return stats if self._clock() - seen < FORGET_SECONDS else None

    def queued(self, uid: str) -> int:
        """Requests for the model that wait in gateways."""
        now = self._clock()
        return sum(counts.get(uid, 0) for counts, seen in self._queued.values() if now - seen < FORGET_SECONDS)
