"""The links that a gateway keeps: one to every ready replica of the cluster, opened before anybody asks.

They go straight to the replicas, or through the scheduler where there is no other way (`tunnel`).
"""

import asyncio
import logging
import math
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from xinfer_runtime.errors import ReplicaLost
from xinfer_runtime.models import Replica, ReplicaState
from xinfer_runtime.routing.hand_over import hand_over
from xinfer_runtime.routing.link import Link

logger = logging.getLogger("xinfer.link")

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0
_DIRECT_AGAIN = 300.0
"""Seconds for which a host that only a tunnel reached is not tried directly."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A process that the table calls ready, and the link to it while there is one."""

    replica: Replica
    link: Link | None = None
    task: asyncio.Task[None] | None = None
    wanted: bool = True


class LinkSet:
    """`changed(uid)` is called whenever a link to a replica of that model came or went, and `loaded(uid)` when one told
    its load. A replica that restarts has another token: a new entry.

    `tunnel` makes a connection to an address by another way, or raises OSError. `has_place(uid, link)` tells whether
    another replica of that model can go on with a stream of a link whose replica is to leave.
    """

    def __init__(
        self,
        make_context: Callable[[], ssl.SSLContext],
        tunnel: Callable[[str], Awaitable[socket.socket]],
        changed: Callable[[str], None],
        loaded: Callable[[str], None],
        has_place: Callable[[str, Link], bool],
    ) -> None:
        self._make_context = make_context
        self._tunnel = tunnel
        self._beyond_reach: dict[str, float] = {}
        """Hosts that only a tunnel reached, and when that was found."""
        self._context: ssl.SSLContext | None = None
        self._changed = changed
        self._loaded = loaded
        self._has_place = has_place
        self._models: dict[str, dict[str, _Entry]] = {}
        """The entries of each model by token."""
        self._tasks: set[asyncio.Task[None]] = set()

    def want(self, uid: str, replicas: Iterable[Replica]) -> None:
        """Keep links to exactly the ready ones among `replicas`, which are all of the model `uid`.

        A link whose replica is not ready any more takes no new request, and lives until its streams are through.
        """
        entries = self._models.setdefault(uid, {})
        ready = {r.token: r for r in replicas if r.state is ReplicaState.READY and r.address and r.token}
        for token in [token for token in entries if token not in ready]:
            entry = entries.pop(token)
            entry.wanted = False
            if entry.link is not None and entry.link.outstanding:
                self._spawn(self._retire(entry, entry.link))
            elif entry.task is not None:
                entry.task.cancel()
        for token, replica in ready.items():
            if token not in entries:
                entry = entries[token] = _Entry(replica)
                entry.task = self._spawn(self._keep(entry))
        if not entries:
            del self._models[uid]

    def live(self, uid: str) -> list[Link]:
        """The links to ready replicas of model `uid` that take requests."""
        return [
            entry.link
            for entry in self._models.get(uid, {}).values()
            if entry.link is not None and entry.link.lost is None and not entry.link.stopping
        ]

    async def close(self) -> None:
        self._models.clear()
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
            uid = entry.replica.uid
            link.info = entry.replica.info
            link.on_load = partial(self._loaded, uid)
            entry.link = link
            self._changed(uid)
            try:
                await link.closed.wait()
            finally:
                entry.link = None
                await link.close()
            self._changed(uid)

    async def _retire(self, entry: _Entry, link: Link) -> None:
        """Close the link when its streams are through or have left, or the replica closed it."""
        await hand_over(link, partial(self._has_place, entry.replica.uid, link))
        if entry.task is not None:
            entry.task.cancel()

    async def _connect(self, replica: Replica) -> Link:
        if self._context is None:
            self._context = await asyncio.to_thread(self._make_context)
        host = replica.address.rpartition(":")[0]
        if not self._is_beyond_reach(host):
            try:
                return await Link.connect(replica.address, replica.token, replica.id, self._context)
            except ReplicaLost as error:
                logger.info("%s; trying through the scheduler", error)
        try:
            way = await self._tunnel(replica.address)
        except OSError as error:
            raise ReplicaLost(f"replica {replica.id} at {replica.address} cannot be reached: {error}") from error
        try:
            link = await Link.connect(replica.address, replica.token, replica.id, self._context, way)
        except BaseException:
            way.close()
            raise
        if not self._is_beyond_reach(host):
            logger.warning("%s is reached through the scheduler alone; a direct way would be faster", host)
            self._beyond_reach[host] = time.monotonic()
        return link

    def _is_beyond_reach(self, host: str) -> bool:
        return time.monotonic() - self._beyond_reach.get(host, -math.inf) < _DIRECT_AGAIN

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
