"""The gateways that watch the controller's table: each change goes to all of them, and none can hold the others up."""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field

from xinfer_runtime.cluster.dask_comm import Comm
from xinfer_runtime.cluster.protocol import Beat, Change, encode
from xinfer_runtime.models import ModelStatus

logger = logging.getLogger("xinfer.controller")

_QUEUE_LIMIT = 4 << 20
_BEAT_EVERY = 3


@dataclass(slots=True)
class _Watcher:
    """A gateway's comm and what it has yet to be sent."""

    comm: Comm
    queue: deque[bytes] = field(default_factory=deque)
    size: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Watchers:
    """A gateway that does not read loses its comm over 4 MiB unsent; it comes back and starts from a new snapshot."""

    def __init__(self) -> None:
        self._watchers: dict[Comm, _Watcher] = {}
        self._beats = 0

    def add(self, comm: Comm, snapshot: bytes) -> None:
        watcher = _Watcher(comm)
        self._watchers[comm] = watcher
        self._put(watcher, snapshot)
        watcher.task = asyncio.create_task(self._send(watcher))

    def discard(self, comm: Comm) -> None:
        watcher = self._watchers.pop(comm, None)
        if watcher is not None and watcher.task is not None:
            watcher.task.cancel()

    def close(self) -> None:
        for comm in list(self._watchers):
            self.discard(comm)
            comm.abort()

    def publish(self, revision: int, uid: str, status: ModelStatus | None) -> None:
        self._broadcast(encode(Change(revision=revision, uid=uid, status=status)))

    def beat(self, revision: int) -> None:
        """Call once per second; every third call sends a sign of life."""
        self._beats += 1
        if self._beats % _BEAT_EVERY == 0:
            self._broadcast(encode(Beat(revision=revision)))

    def _broadcast(self, message: bytes) -> None:
        for watcher in list(self._watchers.values()):
            self._put(watcher, message)

    def _put(self, watcher: _Watcher, message: bytes) -> None:
        watcher.queue.append(message)
        watcher.size += len(message)
        watcher.wake.set()
        if watcher.size > _QUEUE_LIMIT and len(watcher.queue) > 1:
            logger.warning("gateway %s does not read its watch: dropped", watcher.comm.peer_address)
            self.discard(watcher.comm)
            watcher.comm.abort()

    async def _send(self, watcher: _Watcher) -> None:
        while True:
            await watcher.wake.wait()
            watcher.wake.clear()
            while watcher.queue:
                message = watcher.queue.popleft()
                try:
                    await watcher.comm.write(message)
                    # Dask's write only fills tornado's buffer; an empty write waits until the socket took it.
                    stream = getattr(watcher.comm, "stream", None)
                    if stream is not None and stream.writing():
                        await stream.write(b"")
                except OSError:
                    self.discard(watcher.comm)
                    return
                watcher.size -= len(message)
