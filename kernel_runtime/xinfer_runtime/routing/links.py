"""The links that a gateway keeps: one to every ready replica of the cluster, opened before anybody asks."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from xinfer_runtime.errors import ReplicaLost
from xinfer_runtime.messages import Replica, ReplicaState
from xinfer_runtime.routing.link import Link

logger = logging.getLogger("xinfer.link")

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0


@dataclass(slots=True, eq=False)
class _Entry:
    """A process that the table calls ready, and the link to it while there is one."""

    replica: Replica
    link: Link | None = None
    task: asyncio.Task[None] | None = None
    wanted: bool = True


class LinkSet:
    """`changed` is called whenever a link came or went. A replica that restarts has another token: a new entry."""

    def __init__(self, make_context: Callable[[], ssl.SSLContext], changed: Callable[[], None]) -> None:
        self._make_context = make_context
        self._context: ssl.SSLContext | None = None
        self._changed = changed
        self._entries: dict[str, _Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def want(self, replicas: Iterable[Replica]) -> None:
        """Keep links to exactly the ready ones among `replicas`, which are all of the cluster.

        A link whose replica is not ready any more takes no new request, and lives until its streams are through.
        """
        ready = {r.token: r for r in replicas if r.state is ReplicaState.READY and r.address and r.token}
        for token in [token for token in self._entries if token not in ready]:
            entry = self._entries.pop(token)
            entry.wanted = False
            if entry.link is not None and entry.link.outstanding:
                self._spawn(_retire(entry, entry.link))
            elif entry.task is not None:
                entry.task.cancel()
        for token, replica in ready.items():
            if token not in self._entries:
                entry = self._entries[token] = _Entry(replica)
                entry.task = self._spawn(self._keep(entry))

    def live(self, uid: str) -> list[Link]:
        """The links to ready replicas of model `uid` that take requests."""
        return [
            entry.link
            for entry in self._entries.values()
            if entry.replica.uid == uid
            and entry.link is not None
            and entry.link.lost is None
            and not entry.link.stopping
        ]

    async def close(self) -> None:
        self._entries.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, entry: _Entry) -> None:
        """Keep the link of `entry` up, for as long as the table wants it."""
        delay = _FIRST_DELAY
        while entry.wanted:
            try:
                link = await self._connect(entry.replica)
            except ReplicaLost as error:
                logger.info("%s; trying again in %.1f s", error, delay)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY)
                continue
            delay = _FIRST_DELAY
            entry.link = link
            self._changed()
            try:
                await link.closed.wait()
            finally:
                entry.link = None
                await link.close()
            self._changed()

    async def _connect(self, replica: Replica) -> Link:
        if self._context is None:
            self._context = await asyncio.to_thread(self._make_context)
        return await Link.connect(replica.address, replica.token, replica.id, self._context)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _retire(entry: _Entry, link: Link) -> None:
    """Close the link when its streams are through, or the replica closed it."""
    await link.idle()
    if entry.task is not None:
        entry.task.cancel()
