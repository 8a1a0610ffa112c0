"""The requests for one model that wait in the gateway for a replica with room: first come, first served; bounded."""

import asyncio
from collections import deque
from typing import Final

from xinfer_runtime.errors import Overloaded

LINE_LIMIT: Final = 1024
"""Requests for one model that wait in this gateway; the next one is refused."""


class Place:
    """A request's place in the line."""

    def __init__(self) -> None:
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

    def __init__(self, uid: str, limit: int = LINE_LIMIT) -> None:
        self._uid = uid
        self._limit = limit
        self._places: deque[Place] = deque()

    def __len__(self) -> int:
        return len(self._places)

    def first(self, place: Place | None) -> bool:
        """Whether it is the turn of `place`; of None, a request that has just come."""
        return not self._places if place is None else bool(self._places) and self._places[0] is place

    def enter(self, *, front: bool) -> Place:
        """Raises Overloaded when the line is full. A request that lost its replica goes to the front, full or not."""
        place = Place()
        if front:
            self._places.appendleft(place)
        elif len(self._places) >= self._limit:
            raise Overloaded(
                f"{len(self._places)} requests for {self._uid!r} are waiting already; try again later, "
                "or add replicas of the model"
            )
        else:
            self._places.append(place)
        return place

    def leave(self, place: Place) -> None:
        """The request goes on, or gives up: it is the next one's turn."""
        self._places.remove(place)
        self.wake_first()

    def wake_first(self) -> None:
        if self._places:
            self._places[0].wake()

    def wake_all(self) -> None:
        """What everybody waits for may have changed altogether."""
        for place in self._places:
            place.wake()
