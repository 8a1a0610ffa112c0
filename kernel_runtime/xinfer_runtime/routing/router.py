"""From a request to the deltas of its answer, over replicas that may come and go meanwhile."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from xinfer_runtime.errors import (
    ClusterUnavailable,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    ReplicaLost,
    from_info,
)
from xinfer_runtime.messages import Delta, EngineStats, GenerateRequest, ModelStatus, ReplicaRequest, ReplicaState
from xinfer_runtime.routing.breaker import Breaker
from xinfer_runtime.routing.link import Link
from xinfer_runtime.routing.links import LinkSet
from xinfer_runtime.routing.waiting_line import LINE_LIMIT, Place, WaitingLine

logger = logging.getLogger("xinfer.router")

WAIT_SECONDS: Final = 30.0
"""How long a request waits for a ready replica, at its start and after it lost one."""
LOSSES_LIMIT: Final = 3
"""Replicas in a row that a request may lose without getting a token: one that kills whoever serves it has to end."""

STREAMS_LIMIT: Final = 256
"""Requests that this gateway has at one replica at a time; more wait here, for whichever replica has room first."""
SLOW_SECONDS: Final = 10.0
"""A replica that owes answers and has sent none for so long gets no new request while another one can take it."""


class Credentials(Protocol):
    def client_context(self) -> ssl.SSLContext: ...


class ModelTable(Protocol):
    """What the router needs of a `ClusterSession`."""

    @property
    def models(self) -> Mapping[str, ModelStatus]: ...

    @property
    def connected(self) -> bool: ...

    @property
    def credentials(self) -> Credentials: ...

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]: ...

    async def tunnel(self, address: str) -> socket.socket: ...


class Router:
    """Sends requests to the least loaded ready replica. `wait` is in seconds.

    At most `streams` requests are at one replica, and at most `line` wait for each model.
    """

    def __init__(
        self,
        session: ModelTable,
        *,
        wait: float = WAIT_SECONDS,
        streams: int = STREAMS_LIMIT,
        line: int = LINE_LIMIT,
    ) -> None:
        self._session = session
        self._wait = wait
        self._streams = streams
        self._line_limit = line
        self._lines: dict[str, WaitingLine] = {}
        self._breakers: dict[str, Breaker] = {}
        self._links = LinkSet(session.credentials.client_context, session.tunnel, self._notify)
        self._turn = 0
        self._closed = False
        self._unsubscribe = session.subscribe(lambda _uid: self._table_changed())
        self._table_changed()

    async def generate(self, uid: str, request: ReplicaRequest) -> AsyncGenerator[Delta, None]:
        """The deltas of the answer; those that arrived since the last one was taken come as one.

        When a replica is lost, the request goes on at another one, or at the restarted one, with the tokens it has
        (`resume`): the deltas stay one uninterrupted answer. Closing the generator aborts the request in its engine.

        Raises ModelNotFound, ClusterUnavailable, ModelNotReady (none ready within `wait`), Overloaded (none with room
        within `wait`, or too many wait), ReplicaLost (none ready after deltas; or `LOSSES_LIMIT` replicas in a row were
        lost), RequestTooLarge, and what the engine says.
        """
        tokens: list[int] = []
        mu: float | None = None
        losses = 0
        begun = False
        while True:
            link = await self._ready_link(uid, begun=begun)
            try:
                stream = link.submit(_resumed(request, tokens, mu))
            except ReplicaLost:
                continue
            breaker = self._breakers.setdefault(link.name, Breaker())
            breaker.sent(asyncio.get_running_loop().time())
            answered = False
            begun = True
            try:
                while True:
                    delta = await stream.receive(request.id)
                    if not answered:
                        answered = True
                        breaker.succeeded()
                    tokens.extend(delta.token_ids)
                    mu = mu if delta.mirostat_mu is None else delta.mirostat_mu
                    losses = 0 if delta.token_ids else losses
                    if delta.error is not None:
                        if delta.text or delta.token_ids:
                            yield replace(delta, error=None)
                        raise from_info(delta.error)
                    yield delta
                    if delta.last:
                        return
            except ReplicaLost as error:
                if not link.stopping:
                    losses += 1
                    breaker.failed(asyncio.get_running_loop().time())
                logger.warning("request %s after %d tokens: %s", request.id, len(tokens), error)
                if losses >= LOSSES_LIMIT:
                    raise ReplicaLost(f"{losses} replicas of {uid!r} in a row were lost with this request") from error
            finally:
                stream.abort()
                self._room(uid)

    def waiting(self, uid: str) -> int:
        """Requests for this model that wait here for a replica."""
        return len(self._lines.get(uid, ()))

    def stats(self, uid: str) -> dict[str, EngineStats]:
        """The load of each ready replica by its id, at most a few seconds old."""
        return {link.name: link.stats for link in self._links.live(uid)}

    async def close(self) -> None:
        """Close all links; requests in flight end with ReplicaLost. May be called again."""
        if not self._closed:
            self._closed = True
            self._unsubscribe()
        await self._links.close()

    # ---- choosing

    async def _ready_link(self, uid: str, *, begun: bool) -> Link:
        """The replica to use, at once. Requests that find none with room wait in line."""
        deadline = asyncio.get_running_loop().time() + self._wait
        line = self._lines.setdefault(uid, WaitingLine(uid, self._line_limit))
        place: Place | None = None
        try:
            while True:
                if self._closed:
                    raise ReplicaLost("the server is shutting down")
                links = self._links.live(uid)
                free = [link for link in links if link.outstanding < self._streams]
                if free and line.first(place):
                    return self._least_loaded(self._trusted(free))
                status = self._status(uid, begun=begun) if not links else None
                if place is None:
                    place = line.enter(front=begun)
                try:
                    await place.wait(deadline)
                except TimeoutError:
                    if status is None:
                        raise self._no_room(uid) from None
                    raise self._not_ready(uid, status, begun=begun) from None
        finally:
            if place is not None:
                line.leave(place)
            if not line:
                self._lines.pop(uid, None)

    def _trusted(self, links: list[Link]) -> list[Link]:
        """Those that are neither put aside nor slow; all of them where there is no such one."""
        now = asyncio.get_running_loop().time()
        good = [link for link in links if link.name not in self._breakers or self._breakers[link.name].admits(now)]
        quick = [link for link in good if link.silence(now) < SLOW_SECONDS]
        return quick or good or links

    def _no_room(self, uid: str) -> Overloaded:
        return Overloaded(
            f"no replica of {uid!r} had room within {self._wait:.0f} s; try again later, or add replicas of the model"
        )

    def _status(self, uid: str, *, begun: bool) -> ModelStatus:
        """The model, where waiting for it makes sense. Raises ModelNotFound, ClusterUnavailable or ModelNotReady."""
        status = self._session.models.get(uid)
        if status is None:
            if not self._session.connected:
                raise ClusterUnavailable("the cluster does not answer; what it runs is unknown until it does")
            if begun:
                raise ModelNotFound(f"the model {uid!r} was terminated while it answered")
            known = ", ".join(sorted(self._session.models)) or "none"
            raise ModelNotFound(f"no model {uid!r} runs; those that do: {known}", param="model")
        if status.state is ReplicaState.DRAINING:
            raise ModelNotFound(f"the model {uid!r} is being terminated", param="model")
        if status.state is ReplicaState.FAILED and _for_good(status):
            raise ModelNotReady(f"the model {uid!r} failed: {_message(status)}", param="model")
        return status

    def _not_ready(self, uid: str, status: ModelStatus, *, begun: bool) -> ModelNotReady | ReplicaLost:
        text = f"no replica of {uid!r} became ready within {self._wait:.0f} s: {status.state}, {_message(status)}"
        return ReplicaLost(f"the replica was lost, and {text}") if begun else ModelNotReady(text, param="model")

    def _least_loaded(self, links: list[Link]) -> Link:
        """Links with equal loads take turns."""
        self._turn += 1
        start = self._turn % len(links)
        return min(links[start:] + links[:start], key=lambda link: link.load)

    # ---- following the table

    def _table_changed(self) -> None:
        replicas = [replica for status in self._session.models.values() for replica in status.replicas]
        self._links.want(replicas)
        ids = {replica.id for replica in replicas}
        self._breakers = {name: breaker for name, breaker in self._breakers.items() if name in ids}
        self._notify()

    def _notify(self) -> None:
        for line in self._lines.values():
            line.wake_all()

    def _room(self, uid: str) -> None:
        line = self._lines.get(uid)
        if line is not None:
            line.wake_first()


def _resumed(request: ReplicaRequest, tokens: Sequence[int], mu: float | None) -> ReplicaRequest:
    """What goes on with `request` after it got these tokens: one for vectors begins again."""
    if not tokens or not isinstance(request, GenerateRequest):
        return request
    return replace(request, resume=(*request.resume, *tokens), resume_mu=request.resume_mu if mu is None else mu)


def _for_good(status: ModelStatus) -> bool:
    """Whether no replica will be started again: the model's file or the launch is wrong, not the process."""
    errors = [replica.error for replica in status.replicas]
    return all(error is not None and from_info(error).status == 400 for error in errors)


def _message(status: ModelStatus) -> str:
    return next((replica.message for replica in status.replicas if replica.message), "no message")
