"""The requests for one model that wait in the gateway for a replica with room: in the fair queue's order; bounded."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from xinfer_runtime.errors import Overloaded
from xinfer_runtime.messages import Priority
from xinfer_runtime.routing.fair_queue import ANYBODY, FairQueue, Flow, Ticket

LINE_LIMIT: Final = 1024
"""Requests for one model that wait in this gateway; the next one is refused."""
LONGEST_RETRY: Final = 60.0
_MEMORY: Final = 0.1
"""The weight of the latest time between two starts in their mean."""


class Place:
    """A request's place in the line."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self._woken: asyncio.Future[None] | None = None

    async def wait(self, deadline: float) -> None:
        """Until something changed, or TimeoutError at `deadline`, a time of the event loop."""
        self._woken = asyncio.get_running_loop().create_future()
        async with asyncio.timeout_at(deadline):
            await self._woken

    def wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class WaitingLine:
    """Only the first in the line may take what becomes free, so only that one is woken for it."""

    def __init__(self, uid: str, limit: int = LINE_LIMIT, clock: Callable[[], float] | None = None) -> None:
        self.queue = FairQueue()
        self._uid = uid
        self._limit = limit
        self._clock = clock or asyncio.get_running_loop().time
        self._places: dict[Ticket, Place] = {}
        self._started = self._clock()
        self._interval = 0.0
        """Seconds between two starts, the mean of those while requests waited."""

    def __len__(self) -> int:
        return len(self._places)

    def first(self, place: Place | None) -> bool:
        """Whether it is the turn of `place`; of None, a request that has just come."""
        return not self._places if place is None else self.queue.next() is place.ticket

    def enter(self, flow: Flow = ANYBODY, priority: Priority = Priority.INTERACTIVE, *, ahead: bool = False) -> Place:
        """Raises Overloaded when the line is full. A request that lost its replica goes ahead of all, full or not."""
        if len(self._places) >= self._limit and not ahead:
            raise Overloaded(
                f"{len(self._places)} requests for {self._uid!r} are waiting already; try again later, "
                "or add replicas of the model",
                retry_after=self.retry_after,
            )
        if not self._places:
            self._started = self._clock()
        ticket = self.queue.enter(flow, priority, ahead=ahead)
        place = self._places[ticket] = Place(ticket)
        return place

    def start(self, place: Place | None, flow: Flow = ANYBODY, priority: Priority = Priority.INTERACTIVE) -> None:
        """The request goes to a replica: the next one's turn."""
        if place is None:
            self.queue.start(flow, priority)
            return
        now = self._clock()
        took = now - self._started
        self._started = now
        self._interval = took if not self._interval else self._interval + _MEMORY * (took - self._interval)
        del self._places[place.ticket]
        self.queue.start(flow, priority, place.ticket)
        self.wake_first()

    def leave(self, place: Place) -> None:
        """The request gives up: it may have been its turn."""
        del self._places[place.ticket]
        self.queue.leave(place.ticket)
        self.wake_first()

    @property
    def retry_after(self) -> float:
        """Seconds in which those that wait will have started, at the rate of the last ones; at least 1."""
        return max(1.0, min(LONGEST_RETRY, math.ceil(self._interval * len(self._places))))

    def wake_first(self) -> None:
        ticket = self.queue.next()
        if ticket is not None:
            self._places[ticket].wake()

    def wake_all(self) -> None:
        """What everybody waits for may have changed altogether."""
        for place in self._places.values():
            place.wake()
