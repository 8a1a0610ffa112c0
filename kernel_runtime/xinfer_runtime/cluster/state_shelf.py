"""What was computed of sequences that have left this replica, until the next one fetches it."""

import asyncio
import secrets
from collections.abc import Callable

from xinfer_runtime.engines.sequence_state import SequenceState

KEPT_SECONDS = 10.0
"""Whoever was given a ticket comes at once or not at all."""

_PLACES = 4
"""States at a time: they are in no forecast of memory."""


class StateShelf:
    """States by the tickets that their owners were given. `changed` is called when one has gone."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._places = asyncio.Semaphore(_PLACES)
        self._states: dict[str, tuple[SequenceState, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._states)

    async def reserve(self) -> None:
        """Wait for a place. It is to be given up, or used by `put`."""
        await self._places.acquire()

    def give_up(self) -> None:
        self._places.release()

    def put(self, state: SequenceState) -> str:
        """Keep the state in a place that was reserved. Returns its ticket."""
        ticket = secrets.token_urlsafe(16)
        expiry = asyncio.get_running_loop().call_later(KEPT_SECONDS, self.take, ticket)
        self._states[ticket] = state, expiry
        return ticket

    def take(self, ticket: str) -> SequenceState | None:
        """The state with this ticket, once."""
        state, expiry = self._states.pop(ticket, (None, None))
        if expiry is not None:
            expiry.cancel()
            self._places.release()
            self._changed()
        return state

    def clear(self) -> None:
        for ticket in list(self._states):
            self.take(ticket)
