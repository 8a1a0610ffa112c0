"""From a request to the deltas of its answer, over replicas that may come and go meanwhile."""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from msgspec.structs import replace

from xinfer_runtime.errors import (
    DeadlineExceeded,
    Overloaded,
    ReplicaLost,
    from_info,
)
from xinfer_runtime.messages import Delta, GenerateRequest, Priority, ReplicaRequest
from xinfer_runtime.models import EngineStats
from xinfer_runtime.routing.breaker import Breaker, BreakerState
from xinfer_runtime.routing.choice import Choice
from xinfer_runtime.routing.fair_queue import ANYBODY, Bill, Flow
from xinfer_runtime.routing.frames import StateAt
from xinfer_runtime.routing.link import HandedOver, Link
from xinfer_runtime.routing.links import LinkSet
from xinfer_runtime.routing.model_table import ModelTable, not_ready, status_to_wait_for
from xinfer_runtime.routing.prompt_blocks import Prompt, prompt_of
from xinfer_runtime.routing.replica_choice import ReplicaChoice, has_room
from xinfer_runtime.routing.router_watch import RouterWatch
from xinfer_runtime.routing.routing_log import log_loss, log_move, log_route
from xinfer_runtime.routing.waiting_line import LINE_LIMIT, Place, WaitingLine

WAIT_SECONDS: Final = 30.0
"""How long a request waits for a ready replica, at its start and after it lost one."""
LOSSES_LIMIT: Final = 3
"""Replicas in a row that a request may lose without getting a token: one that kills whoever serves it has to end."""

STREAMS_LIMIT: Final = 256
"""Requests that this gateway has at one replica at a time; more wait here, for whichever replica has room first."""
SLOW_SECONDS: Final = 10.0
"""A replica that owes answers and has sent none for so long gets no new request while another one can take it."""


class Router:
    """Sends requests to the replica that is through with them first (`choice`). `wait` is in seconds.

    At most `streams` requests are at one replica, fewer where it computes fewer at a time, and at most `line` wait for
    each model.
    """

    def __init__(
        self,
        session: ModelTable,
        *,
        wait: float = WAIT_SECONDS,
        streams: int = STREAMS_LIMIT,
        line: int = LINE_LIMIT,
        watch: RouterWatch | None = None,
    ) -> None:
        self._wait = wait
        self._streams = streams
        self._line_limit = line
        self._watch = watch or RouterWatch()
        self._traffic: dict[str, _Traffic] = {}
        self._breakers: dict[str, Breaker] = {}
        self._ids: dict[str, set[str]] = {}
        """Of each model, its replicas."""
        self._closed = False
        self._former: set[asyncio.Task[None]] = set()
        """What ends the links of sessions before."""
        self._use(session)

    def follow(self, session: ModelTable) -> None:
        """Go on with the session of a cluster that was started again: requests in flight wait for its replicas."""
        self._unsubscribe()
        task = asyncio.create_task(self._links.close())
        self._former.add(task)
        task.add_done_callback(self._former.discard)
        self._use(session)

    def _use(self, session: ModelTable) -> None:
        self._session = session
        self._links = LinkSet(
            session.credentials.client_context, session.tunnel, self._notify, self._room, self._has_place
        )
        self._unsubscribe = session.subscribe(self._model_changed)
        for uid in session.models:
            self._model_changed(uid)

    async def generate(self, uid: str, request: ReplicaRequest, flow: Flow = ANYBODY) -> AsyncGenerator[Delta, None]:
        """The deltas of the answer; those that arrived since the last one was taken come as one. `flow` is who asks.

        When a replica is lost, the request goes on at another one, or at the restarted one, with the tokens it has
        (`resume`): the deltas stay one uninterrupted answer. So it does when a replica is to leave, and then what was
        computed there goes with it where it can. Closing the generator aborts the request in its engine.

        Raises ModelNotFound, ClusterUnavailable, ModelNotReady (none ready within `wait`), Overloaded (none with room
        within `wait`, or too many wait), ReplicaLost (none ready after deltas; or `LOSSES_LIMIT` replicas in a row were
        lost), DeadlineExceeded (after the request's own `timeout`), RequestTooLarge, and what the engine says.
        """
        loop = asyncio.get_running_loop()
        timeout = request.timeout if isinstance(request, GenerateRequest) else None
        deadline = math.inf if timeout is None else loop.time() + timeout
        prompt = prompt_of(request)
        traffic = self._traffic.setdefault(uid, _Traffic(uid, self._line_limit))
        traffic.requests += 1
        bill = Bill(traffic.line.queue, flow)
        tokens: list[int] = []
        mu: float | None = None
        state: StateAt | None = None
        losses = 0
        begun = False
        try:
            while True:
                link, choice = await self._ready_link(traffic, request, prompt, flow, deadline, begun=begun)
                try:
                    stream = link.submit(_resumed(request, tokens, mu, deadline - loop.time()), state)
                except ReplicaLost:
                    begun = True  # It has been through the line.
                    continue
                expiry = loop.call_at(deadline, stream.expire) if deadline < math.inf else None
                breaker = self._breakers.setdefault(link.name, Breaker())
                breaker.sent(loop.time())
                self._watch.routed(uid, choice)
                log_route(uid, request, link.name, choice)
                errand = traffic.choice.sent(link, prompt, choice.cached, request, loop.time())
                bill.start(prompt.tokens - choice.cached if state is None else 0)
                state = None
                answered = False
                begun = True
                try:
                    while True:
                        delta = await stream.receive(request.id)
                        if not answered:
                            answered = True
                            breaker.succeeded()
                        errand.observe(delta)
                        bill.observe(delta)
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
                except HandedOver as moved:
                    breaker.succeeded()
                    state = moved.state
                    self._watch.moved(uid, computed=state is not None)
                    log_move(uid, request, link.name, len(tokens), computed=state is not None)
                except ReplicaLost as error:
                    if not link.stopping:
                        losses += 1
                        breaker.failed(loop.time())
                    self._watch.lost(uid, begun=bool(tokens))
                    log_loss(uid, request, link.name, len(tokens), error)
                    if losses >= LOSSES_LIMIT:
                        raise ReplicaLost(
                            f"{losses} replicas of {uid!r} in a row were lost with this request"
                        ) from error
                finally:
                    if expiry is not None:
                        expiry.cancel()
                    stream.abort()
                    errand.end()
                    self._room(uid)
        finally:
            traffic.requests -= 1
            self._forget(uid)

    def waiting(self, uid: str) -> int:
        """Requests for this model that wait here for a replica."""
        traffic = self._traffic.get(uid)
        return len(traffic.line) if traffic is not None else 0

    def stats(self, uid: str) -> dict[str, EngineStats]:
        """The load of each ready replica by its id, at most a few seconds old."""
        return {link.name: link.stats for link in self._links.live(uid)}

    def breakers(self, uid: str) -> dict[str, BreakerState]:
        """Whether each replica that has ever got a request is trusted, by its id."""
        now = asyncio.get_running_loop().time()
        known = sorted(self._ids.get(uid, set()) & self._breakers.keys())
        return {name: self._breakers[name].state(now) for name in known}

    async def close(self) -> None:
        """Close all links; requests in flight end with ReplicaLost. May be called again."""
        if not self._closed:
            self._closed = True
            self._unsubscribe()
        await asyncio.gather(self._links.close(), *self._former)

    # ---- choosing

    async def _ready_link(
        self,
        traffic: "_Traffic",
        request: ReplicaRequest,
        prompt: Prompt,
        flow: Flow,
        expiry: float,
        *,
        begun: bool,
    ) -> tuple[Link, Choice]:
        """The replica to use, at once. Requests that find none with room wait in line."""
        uid, line = traffic.uid, traffic.line
        priority = request.priority if isinstance(request, GenerateRequest) else Priority.INTERACTIVE
        loop = asyncio.get_running_loop()
        entered = loop.time()
        deadline = min(entered + self._wait, expiry)
        place: Place | None = None
        try:
            while True:
                if self._closed:
                    raise ReplicaLost("the server is shutting down")
                links = self._links.live(uid)
                free = [link for link in links if has_room(link, self._streams)]
                if free and line.first(place):
                    now = loop.time()
                    trusted = self._trusted(free, now)
                    choice = traffic.choice.choose(trusted, prompt, now)
                    started, place = place, None
                    line.start(started, flow, priority)
                    self._watch.queued(uid, priority, now - entered)
                    return trusted[choice.index], choice
                if free:
                    line.wake_first()
                status = status_to_wait_for(self._session, uid, begun=begun) if not links else None
                if place is None:
                    place = line.enter(flow, priority, ahead=begun)
                    if free:
                        continue  # It may be the first.
                try:
                    await place.wait(deadline)
                except TimeoutError:
                    if deadline == expiry:
                        raise DeadlineExceeded(
                            f"no replica of {uid!r} had room within the request's `timeout`"
                        ) from None
                    if status is None:
                        raise self._no_room(traffic) from None
                    raise not_ready(status, self._wait, begun=begun) from None
        finally:
            if place is not None:
                line.leave(place)

    def _trusted(self, links: list[Link], now: float) -> list[Link]:
        """Those that are neither put aside nor slow; all of them where there is no such one."""
        good = [link for link in links if link.name not in self._breakers or self._breakers[link.name].admits(now)]
        quick = [link for link in good if link.silence(now) < SLOW_SECONDS]
        return quick or good or links

    def _has_place(self, uid: str, link: Link) -> bool:
        """Whether another replica can go on with a stream of this one as if it had computed all of it."""
        identity = link.info.state_identity if link.info is not None else ""
        return bool(identity) and any(
            other.info is not None and other.info.state_identity == identity and has_room(other, self._streams)
            for other in self._links.live(uid)
        )

    def _no_room(self, traffic: "_Traffic") -> Overloaded:
        return Overloaded(
            f"no replica of {traffic.uid!r} had room within {self._wait:.0f} s; try again later, or add replicas of "
            "the model",
            retry_after=traffic.line.retry_after,
        )

    # ---- following the table

    def _model_changed(self, uid: str) -> None:
        status = self._session.models.get(uid)
        replicas = status.replicas if status is not None else ()
        self._links.want(uid, replicas)
        ids = {replica.id for replica in replicas}
        for name in self._ids.pop(uid, set()) - ids:
            self._breakers.pop(name, None)
        if ids:
            self._ids[uid] = ids
        traffic = self._traffic.get(uid)
        if traffic is not None:
            traffic.choice.keep({replica.address for replica in replicas})
        self._forget(uid)
        self._notify(uid)

    def _forget(self, uid: str) -> None:
        """What is known of a model goes when it does, and nobody asks for it any more."""
        traffic = self._traffic.get(uid)
        if traffic is not None and not traffic.requests and uid not in self._session.models:
            del self._traffic[uid]

    def _notify(self, uid: str) -> None:
        traffic = self._traffic.get(uid)
        if traffic is not None:
            traffic.line.wake_all()

    def _room(self, uid: str) -> None:
        traffic = self._traffic.get(uid)
        if traffic is not None:
            traffic.line.wake_first()


class _Traffic:
    """The requests for one model."""

    def __init__(self, uid: str, limit: int) -> None:
        self.uid = uid
        self.line = WaitingLine(uid, limit)
        self.choice = ReplicaChoice()
        self.requests = 0


def _resumed(request: ReplicaRequest, tokens: Sequence[int], mu: float | None, left: float) -> ReplicaRequest:
    """What goes on with `request` after it got these tokens, `left` seconds before its end: one for vectors begins
    again."""
    if not isinstance(request, GenerateRequest):
        return request
    if left < math.inf:
        request = replace(request, timeout=max(0.0, left))
    if not tokens:
        return request
    return replace(request, resume=(*request.resume, *tokens), resume_mu=request.resume_mu if mu is None else mu)
