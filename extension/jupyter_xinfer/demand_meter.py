"""What is used here, for the controller: requests in flight by model, and how long they wait for their first token."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from xinfer_runtime.cluster.protocol import Demand, DemandReport
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import XinferError
from xinfer_runtime.models import ModelSpec, ModelStatus

logger = logging.getLogger("xinfer.demand")

_EVERY: Final = 2.0


@dataclass(eq=False, slots=True)
class Waiting:
    """One request."""

    started: float
    answered: bool = False

    def answer(self) -> float:
        """Its first token is there. Returns how long that took, 0 where it was there before."""
        if self.answered:
            return 0.0
        self.answered = True
        return monotonic() - self.started


@dataclass(slots=True)
class _Use:
    requests: set[Waiting] = field(default_factory=set)
    waited: float = 0.0


class DemandMeter:
    """Counts requests, and tells the controller of models for which it matters, as long as there is something new."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(8)
        self._uses: dict[str, _Use] = {}
        self._told: dict[str, Demand] = {}

    @contextmanager
    def request(self, uid: str) -> "Iterator[Callable[[], None]]":
        """While the request runs; what it gives is called at each sign of an answer."""
        use = self._uses.setdefault(uid, _Use())
        waiting = Waiting(monotonic())
        use.requests.add(waiting)

        def answered() -> None:
            use.waited = max(use.waited, waiting.answer())

        try:
            yield answered
        finally:
            use.requests.discard(waiting)

    def requests(self, uid: str) -> int:
        return len(self._uses[uid].requests) if uid in self._uses else 0

    def news(self, models: Mapping[str, ModelStatus]) -> DemandReport | None:
        """What to tell now; None for nothing. A model in use is news every time."""
        demands = []
        now = monotonic()
        for uid, use in list(self._uses.items()):
            status = models.get(uid)
            if status is None and not use.requests:
                del self._uses[uid]
                self._told.pop(uid, None)
                continue
            waits = [now - each.started for each in use.requests if not each.answered]
            demand = Demand(uid=uid, requests=len(use.requests), waited=max([use.waited, *waits]))
            use.waited = 0.0
            if status is not None and _matters(status.spec) and (demand.requests or demand != self._told.get(uid)):
                self._told[uid] = demand
                demands.append(demand)
        return DemandReport(gateway=self._name, demands=tuple(demands)) if demands else None

    async def tell(self, session: Callable[[], ClusterSession | None]) -> None:
        """For ever. What is lost with a connection the next report makes good."""
        while True:
            await asyncio.sleep(_EVERY)
            current = session()
            report = self.news(current.models) if current is not None and current.connected else None
            if current is None or report is None:
                continue
            try:
                await current.report_demand(report)
            except XinferError as error:
                logger.info("the controller does not hear what is used here: %s", error)


def may_sleep(spec: ModelSpec) -> bool:
    """Whether the model may be unloaded until it is asked."""
    return spec.idle_timeout is not None or spec.evictable


def _matters(spec: ModelSpec) -> bool:
    return may_sleep(spec) or spec.max_replicas is not None
