"""The gateway's end of a link: one TLS connection to one replica, for all requests that this gateway has there."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Self

from msgspec.structs import replace

from xinfer_runtime.errors import DeadlineExceeded, InvalidRequest, ReplicaLost, RequestTooLarge
from xinfer_runtime.messages import Delta, GenerateRequest, ReplicaRequest
from xinfer_runtime.models import EngineStats, ModelInfo
from xinfer_runtime.routing.frames import (
    FRAME_LIMIT,
    INITIAL_CREDIT,
    PROTOCOL_VERSION,
    Abort,
    Credit,
    FrameError,
    FromGateway,
    FromReplica,
    Hello,
    Leave,
    Left,
    Load,
    Ping,
    Pong,
    StateAt,
    Step,
    Submit,
    Welcome,
    decode_from_replica,
    encode_frames,
    encode_message,
    read_frame,
)
from xinfer_runtime.routing.link_tasks import run_until_one_ends
from xinfer_runtime.routing.merge import merge
from xinfer_runtime.routing.outbox import Outbox
from xinfer_runtime.routing.silence import Silence
from xinfer_runtime.routing.workload import Workload

logger = logging.getLogger("xinfer.link")

CONNECT_SECONDS: Final = 5.0
PING_SECONDS: Final = 2.0
SILENCE_LIMIT: Final = 4.0
_TICK = 0.5
_CLOSED = "the link was closed"
_CREDIT_STEP = INITIAL_CREDIT // 2


class HandedOver(Exception):
    """The stream is to go on at another replica, which finds what was computed of it at `state`, None for nowhere."""

    def __init__(self, state: StateAt | None) -> None:
        super().__init__("the stream has left its replica")
        self.state = state


class Stream:
    """The deltas of one request. `receive` until the last one, or `abort`."""

    def __init__(self, link: "Link", stream_id: str, *, moves: bool) -> None:
        self.moves = moves
        """Whether it may still be told to leave."""
        self._left: HandedOver | None = None
        self._link = link
        self._id = stream_id
        self._deltas: list[Delta] = []
        # A bare future: with hundreds of streams, an Event's share of the cost per token is the largest.
        self._waiter: asyncio.Future[None] | None = None
        self._owed = 0
        self._credit = INITIAL_CREDIT
        self._ended = False
        self._expired = False

    async def receive(self, request_id: str) -> Delta:
        """Everything that arrived since the last call as one delta under `request_id`; waits for something.

        Raises ReplicaLost when the link is gone and nothing is left, DeadlineExceeded after `expire`, HandedOver when
        it has left its replica and nothing is left.
        """
        while not self._deltas or self._expired:
            if self._expired:
                raise DeadlineExceeded("the request's `timeout` is over, and it was dropped")
            if self._left is not None:
                raise self._left
            if self._link.lost is not None:
                raise ReplicaLost(self._link.lost)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        taken = len(self._deltas)
        delta = merge(self._deltas, request_id)
        self._deltas = []
        if delta.last:
            self._ended = True
        else:
            self._owed += taken
            if self._owed >= _CREDIT_STEP:
                self._link.send(Credit(self._id, self._owed))
                self._credit += self._owed
                self._owed = 0
        return delta

    def abort(self) -> None:
        """Have the engine drop the request, unless it has ended. May be called again."""
        self._link.forget(self._id, abort=not self._ended)
        self._ended = True

    def expire(self) -> None:
        """The request's time is up."""
        self._expired = True
        self.wake()

    def leave(self) -> None:
        """Have it go on at another replica."""
        self.moves = False
        # What waits for credit there comes as one delta.
        self._credit += 1
        self._link.send(Credit(self._id, 1))
        self._link.send(Leave(self._id))

    def left(self, state: StateAt | None) -> None:
        self._left = HandedOver(state)
        self._ended = True
        self.wake()

    def deliver(self, delta: Delta) -> None:
        """Raises FrameError for a delta that the replica had no credit for."""
        self._credit -= 1
        if self._credit < 0:
            raise FrameError("deltas without credit")
        self._deltas.append(delta)
        self.wake()

    def wake(self) -> None:
        """Something arrived, or the link is lost."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Link:
    """Made by `connect`. `lost` says why the link is gone, None while it lives; `closed` is set then.

    `stopping` is whether the replica refused a request because it is about to end. `workload` is what it owes this
    gateway, `info` what its model turned out to be; both are the router's. `on_load` is called when the replica told
    its load.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, address: str, token: str
    ) -> None:
        self.name = name
        self.address = address
        self._token = token
        self.info: ModelInfo | None = None
        self.workload = Workload()
        self.on_load: Callable[[], None] = _nothing
        self.lost: str | None = None
        self.stopping = False
        self.closed = asyncio.Event()
        self.stats = EngineStats()
        self._others = 0
        self._reader = reader
        self._writer = writer
        self._outbox = Outbox(writer)
        self._streams: dict[str, Stream] = {}
        self._numbers = 0
        self._answered = 0.0
        self._silence = Silence(asyncio.get_running_loop().time(), _TICK)
        self._task = asyncio.create_task(self._run())

    @classmethod
    async def connect(
        cls, address: str, token: str, replica_id: str, context: ssl.SSLContext, sock: socket.socket | None = None
    ) -> Self:
        """Open the link to the replica at `address` (`host:port`), over `sock` where it is given.

        Raises ReplicaLost when that does not succeed.
        """
        host, _, port = address.rpartition(":")
        try:
            where: dict[str, Any] = {"host": host.strip("[]"), "port": int(port)} if sock is None else {"sock": sock}
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(
                    **where, ssl=context, server_hostname="", ssl_shutdown_timeout=1.0
                )
                try:
                    writer.write(encode_frames([encode_message(Hello(PROTOCOL_VERSION, token))]))
                    match decode_from_replica(await read_frame(reader)):
                        case [Welcome(there), *rest] if there == replica_id:
                            link = cls(reader, writer, replica_id, address, token)
                        case other:
                            raise FrameError(f"no welcome to {replica_id}: {other!r:.100}")
                except BaseException:
                    writer.transport.abort()
                    raise
        except (OSError, FrameError, ValueError) as error:
            raise ReplicaLost(f"replica {replica_id} at {address} cannot be reached: {error!r}") from error
        link._receive(rest)
        return link

    @property
    def outstanding(self) -> int:
        """Streams that this gateway has on the link."""
        return len(self._streams)

    @property
    def others(self) -> int:
        """Requests of other gateways, when the replica last said."""
        return self._others

    @property
    def leaving(self) -> int:
        """Streams that were told to leave, and have not yet."""
        return sum(not stream.moves for stream in self._streams.values())

    def let_one_leave(self) -> bool:
        """Have the next stream go on at another replica. False where there is none that can."""
        stream = next((stream for stream in self._streams.values() if stream.moves), None)
        if stream is not None:
            stream.leave()
        return stream is not None

    def submit(self, request: ReplicaRequest, state: StateAt | None = None) -> Stream:
        """Start a stream; `state` is where it is kept what another replica has computed of it.

        Raises ReplicaLost on a lost link, RequestTooLarge or InvalidRequest for what no frame can hold.
        """
        if self.lost is not None:
            raise ReplicaLost(self.lost)
        self._numbers += 1
        stream_id = f"{self._numbers}"
        try:
            self._outbox.put(Submit(replace(request, id=stream_id), state))
        except FrameError as error:
            raise RequestTooLarge(f"the request does not fit into {FRAME_LIMIT >> 20} MiB: {error}") from error
        except OverflowError as error:
            raise InvalidRequest("the request holds a whole number that does not fit into 64 bits") from error
        if not self._streams:
            self._answered = asyncio.get_running_loop().time()
        stream = self._streams[stream_id] = Stream(self, stream_id, moves=isinstance(request, GenerateRequest))
        return stream

    def silence(self, now: float) -> float:
        """Seconds since the replica sent a delta, where it owes some; `now` is a time of the event loop."""
        return now - self._answered if self._streams else 0.0

    def send(self, message: FromGateway) -> None:
        if self.lost is None:
            self._outbox.put(message)

    def forget(self, stream_id: str, *, abort: bool) -> None:
        if self._streams.pop(stream_id, None) is None:
            return
        if abort and self.lost is None:
            self._outbox.put(Abort(stream_id))

    async def close(self) -> None:
        """Close the link: the replica drops what this gateway had there."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._end(_CLOSED)

    # ---- the link's tasks

    async def _run(self) -> None:
        why = _CLOSED
        try:
            await run_until_one_ends(self._read(), self._outbox.run(), self._ping())
        except (OSError, FrameError) as error:
            why = str(error)
            logger.info("the link to %s is lost: %s", self.name, why)
        finally:
            self._end(why)

    def _end(self, why: str) -> None:
        if self.lost is not None:
            return
        self.lost = f"replica {self.name} is lost: {why}"
        self._writer.transport.abort()
        self.closed.set()
        for stream in list(self._streams.values()):
            stream.wake()

    async def _read(self) -> None:
        while True:
            messages = decode_from_replica(await read_frame(self._reader))
            self._silence.heard()
            self._receive(messages)

    def _receive(self, messages: list[FromReplica]) -> None:
        for message in messages:
            match message:
                case Step(deltas):
                    self._answered = asyncio.get_running_loop().time()
                    for delta in deltas:
                        self._deliver(delta)
                case Load(stats):
                    self._learn(stats)
                case Pong():
                    pass  # That it came is all it says; `_read` has noted that.
                case Left(stream_id, ticket):
                    stream = self._streams.get(stream_id)
                    if stream is not None:
                        stream.left(StateAt(self.address, self.name, self._token, ticket) if ticket else None)
                case other:
                    raise FrameError(f"a {type(other).__name__} that nobody asked for")

    def _learn(self, stats: EngineStats) -> None:
        self.stats = stats
        self._others = max(0, stats.running + stats.waiting - len(self._streams))
        self.on_load()

    def _deliver(self, delta: Delta) -> None:
        if delta.error is not None and delta.error.code == ReplicaLost.code:
            self.stopping = True
        stream = self._streams.get(delta.id)
        if stream is not None:
            stream.deliver(delta)

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + PING_SECONDS
        while True:
            await asyncio.sleep(_TICK)
            now = loop.time()
            if self._silence.tick(now) > SILENCE_LIMIT:
                raise FrameError(f"silent for {self._silence.seconds:.1f} s")
            if now >= due:
                due = now + PING_SECONDS
                self._outbox.put(Ping())


def _nothing() -> None:
    pass
