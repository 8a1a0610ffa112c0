"""One link as the replica holds it: its streams, what they may be sent, and what waits for credit."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from xinfer_runtime.messages import Delta
from xinfer_runtime.routing.frames import INITIAL_CREDIT, Left, Message, Step
from xinfer_runtime.routing.merge import merge
from xinfer_runtime.routing.outbox import Outbox

_CREDIT_LIMIT = 1 << 20


@dataclass(slots=True)
class _Stream:
    """`waiting` has the deltas that are not sent yet; together they are at most what the model can make."""

    engine_id: str
    credit: int = INITIAL_CREDIT
    waiting: list[Delta] = field(default_factory=list)


class Peer:
    """A link to one gateway. `on_sent` is called after sending."""

    def __init__(self, writer: asyncio.StreamWriter, on_sent: Callable[[], None]) -> None:
        self.outbox = Outbox(writer, self._collect)
        self._on_sent = on_sent
        self._streams: dict[str, _Stream] = {}
        self._sendable: set[str] = set()
        self._left: list[Left] = []

    def has(self, stream_id: str) -> bool:
        return stream_id in self._streams

    def engine_id(self, stream_id: str) -> str | None:
        """The engine's id of a stream; None for one that ended."""
        stream = self._streams.get(stream_id)
        return stream.engine_id if stream is not None else None

    def open(self, stream_id: str, engine_id: str) -> None:
        self._streams[stream_id] = _Stream(engine_id)

    def close(self, stream_id: str) -> str | None:
        """Forget a stream; returns the engine's id of it, or None for one that ended before."""
        stream = self._streams.pop(stream_id, None)
        self._sendable.discard(stream_id)
        return stream.engine_id if stream is not None else None

    def leave(self, stream_id: str, ticket: str) -> None:
        """Send what waits of the stream, and that it is kept for this ticket. Ignored for one that was closed."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.waiting:
            self._sendable.add(stream_id)
        self._left.append(Left(stream_id, ticket))
        self.outbox.wake()

    def deliver(self, stream_id: str, delta: Delta) -> None:
        """Send `delta` with this loop turn's frame, or when there is credit again."""
        stream = self._streams[stream_id]
        stream.waiting.append(delta)
        if stream.credit > 0:
            self._sendable.add(stream_id)
            self.outbox.wake()

    def credit(self, stream_id: str, deltas: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.credit = min(stream.credit + max(0, deltas), _CREDIT_LIMIT)
        if stream.waiting and stream.credit > 0:
            self._sendable.add(stream_id)
            self.outbox.wake()

    @property
    def sent(self) -> bool:
        """Whether nothing waits for credit or for the socket."""
        return not self._left and not any(stream.waiting for stream in self._streams.values())

    def _collect(self) -> list[Message]:
        deltas: list[Delta] = []
        for stream_id in self._sendable:
            stream = self._streams[stream_id]
            delta = merge(stream.waiting, stream_id)
            stream.waiting = []
            stream.credit -= 1
            deltas.append(delta)
            if delta.last:
                del self._streams[stream_id]
        self._sendable.clear()
        left, self._left = self._left, []
        for each in left:
            self._streams.pop(each.id, None)
        self._on_sent()
        return [Step(tuple(deltas)), *left] if deltas else [*left]
