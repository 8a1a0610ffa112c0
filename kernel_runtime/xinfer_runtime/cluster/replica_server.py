"""The replica's end of the links: gateways submit requests, and each engine step goes back as one frame per link."""

import asyncio
import hmac
import itertools
import logging
import ssl
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from msgspec.structs import replace

from xinfer_runtime.cluster.replica_peer import Peer
from xinfer_runtime.cluster.request_log import RequestLog
from xinfer_runtime.cluster.state_fetch import fetch_state, give_state
from xinfer_runtime.cluster.state_shelf import StateShelf
from xinfer_runtime.engines.base import Engine
from xinfer_runtime.engines.sequence_state import SequenceState
from xinfer_runtime.errors import EngineError, ErrorInfo, ModelNotReady, ReplicaLost, XinferError
from xinfer_runtime.messages import Delta, ReplicaRequest
from xinfer_runtime.models import EngineStats
from xinfer_runtime.routing.frames import (
    FRAME_LIMIT,
    HELLO_LIMIT,
    PROTOCOL_VERSION,
    Abort,
    Credit,
    Fetch,
    FrameError,
    FromGateway,
    Hello,
    Leave,
    Load,
    Ping,
    Pong,
    StateAt,
    Submit,
    Welcome,
    decode_from_gateway,
    read_frame,
)
from xinfer_runtime.routing.link_tasks import run_until_one_ends
from xinfer_runtime.routing.silence import Silence

logger = logging.getLogger("xinfer.replica")

HANDSHAKE_SECONDS: Final = 5.0
SILENCE_LIMIT: Final = 10.0
"""A gateway pings every 2 s; its streams are dropped when it has been silent for longer than this."""
LOAD_SECONDS: Final = 0.2
_TICK = 1.0


class ReplicaServer:
    """Listens on `host` for gateways that have a certificate of the cluster and know `token`.

    `engine` is None until its model is loaded; requests before that are refused. `peers` is for connections to other
    replicas; without it, nothing is fetched from them.
    """

    def __init__(
        self, replica_id: str, token: str, context: ssl.SSLContext, host: str, peers: ssl.SSLContext | None = None
    ) -> None:
        self.engine: Engine | None = None
        self._id = replica_id
        self._token = token
        self._context = context
        self._host = host
        self._peer_context = peers
        self._server: asyncio.Server | None = None
        self._peers: set[Peer] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes: dict[str, tuple[Peer, str, RequestLog]] = {}
        """Engine's request id -> link, the request's id on that link, and what is logged of it."""
        self._numbers = itertools.count(1)
        self._draining = False
        self._moved = asyncio.Event()
        """Set when a request ended, a link got what waited for it, or a state was fetched."""
        self._shelf = StateShelf(self._moved.set)
        self._giving = 0

    async def start(self) -> str:
        """Returns the address, `host:port`."""
        self._server = await asyncio.start_server(
            self._accept,
            self._host,
            0,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=1.0,
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def emit(self, deltas: Sequence[Delta]) -> None:
        """The engine's `EmitStep`: hand each delta to the link of its request."""
        for delta in deltas:
            route = self._routes.get(delta.id)
            if route is None:
                continue
            peer, stream, log = route
            log.observe(delta)
            if delta.last:
                self._forget(delta.id)
            peer.deliver(stream, delta)

    async def drain(self, seconds: float) -> None:
        """Refuse new requests and give the running ones `seconds`, until their gateways have what they made."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                while self._routes or self._shelf or self._giving or not all(peer.sent for peer in self._peers):
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            logger.info("%d streams did not finish within %.0f s", len(self._routes), seconds)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._shelf.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- links

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        name = writer.get_extra_info("peername")
        try:
            ticket = await self._handshake(reader)
            if ticket is None:
                await self._serve(reader, writer)
            elif (state := self._shelf.take(ticket)) is not None:
                self._giving += 1
                try:
                    await give_state(state, reader, writer)
                finally:
                    self._giving -= 1
                    self._moved.set()
        except (FrameError, TimeoutError) as error:
            logger.warning("a link from %s is closed: %s", name, error)
        except OSError as error:
            logger.info("a link from %s ended: %s", name, error)
        except asyncio.CancelledError:
            # Only `close` cancels, and a cancelled handler would be reported as an error by asyncio.
            logger.debug("a link was closed")
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _handshake(self, reader: asyncio.StreamReader) -> str | None:
        """The ticket of another replica that fetches something, None for a gateway. Raises FrameError, TimeoutError or
        OSError for somebody who is neither, or of another cluster.
        """
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            messages = decode_from_gateway(await read_frame(reader, HELLO_LIMIT))
        match messages:
            case [Hello(version, token), *rest] if not rest or (len(rest) == 1 and isinstance(rest[0], Fetch)):
                if not hmac.compare_digest(token.encode(), self._token.encode()):
                    raise FrameError("a wrong token")
                if version != PROTOCOL_VERSION:
                    raise FrameError(f"protocol version {version}, this is {PROTOCOL_VERSION}")
                return rest[0].ticket if rest and isinstance(rest[0], Fetch) else None
            case _:
                raise FrameError("the first frame holds no Hello")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(writer, self._moved.set)
        self._peers.add(peer)
        peer.outbox.put(Welcome(self._id))
        silence = Silence(asyncio.get_running_loop().time(), _TICK)
        try:
            await run_until_one_ends(
                self._read(peer, reader, silence), peer.outbox.run(), self._tell_load(peer), _watch(silence)
            )
        finally:
            self._peers.discard(peer)
            self._drop(peer)

    async def _tell_load(self, peer: Peer) -> None:
        """Tell the gateway of every change of the load soon, whether deltas go there or not: it routes by it."""
        told = None
        while True:
            stats = self._stats()
            if stats != told:
                told = stats
                peer.outbox.put(Load(stats))
            await asyncio.sleep(LOAD_SECONDS)

    async def _read(self, peer: Peer, reader: asyncio.StreamReader, silence: Silence) -> None:
        while True:
            for message in decode_from_gateway(await read_frame(reader, FRAME_LIMIT)):
                self._receive(peer, message)
            silence.heard()

    def _receive(self, peer: Peer, message: FromGateway) -> None:
        match message:
            case Submit(request, state):
                self._submit(peer, request, state)
            case Leave(stream):
                self._spawn(self._leave(peer, stream))
            case Abort(stream):
                engine_id = peer.close(stream)
                if engine_id is not None:
                    self._abort(engine_id)
            case Credit(stream, deltas):
                peer.credit(stream, deltas)
            case Ping():
                peer.outbox.put(Pong())
            case other:
                raise FrameError(f"a {type(other).__name__} that nobody waits for")

    # ---- requests

    def _submit(self, peer: Peer, request: ReplicaRequest, where: StateAt | None) -> None:
        if peer.has(request.id):
            raise FrameError(f"the stream {request.id!r} exists")
        # Unique in this process: gateways do not know each other's ids, and an id may come again on a new link while
        # the engine still drops its old stream.
        engine_id = f"{next(self._numbers)}"
        peer.open(request.id, engine_id)
        refusal = self._refusal()
        log = RequestLog(request, self._id)
        if refusal is not None:
            log.observe(Delta(engine_id, error=refusal))
            peer.deliver(request.id, Delta(engine_id, error=refusal))
            return
        self._routes[engine_id] = (peer, request.id, log)
        request = replace(request, id=engine_id)
        if where is None or self._peer_context is None:
            self._begin(request)
        else:
            self._spawn(self._fetch(request, where, self._peer_context))

    async def _fetch(self, request: ReplicaRequest, where: StateAt, context: ssl.SSLContext) -> None:
        """Begin a request with what another replica has computed of it."""
        state = await fetch_state(where, context)
        if request.id in self._routes:  # Else it was aborted meanwhile.
            self._begin(request, state)

    def _begin(self, request: ReplicaRequest, state: SequenceState | None = None) -> None:
        assert self.engine is not None
        engine_id = request.id
        try:
            self.engine.submit(request, state)
        except XinferError as error:
            self.emit((Delta(engine_id, error=error.info),))
        except Exception as error:
            # An engine's fault with one request is not to close the link, which serves others.
            logger.exception("submitting %s", request.trace or request.id)
            self.emit((Delta(engine_id, error=EngineError(f"the engine failed on this request: {error!r}").info),))

    async def _leave(self, peer: Peer, stream: str) -> None:
        """Give up a stream, and keep what was computed of it for the replica where it goes on."""
        await self._shelf.reserve()
        state: SequenceState | None = None
        engine_id = peer.engine_id(stream)
        if engine_id in self._routes and self.engine is not None:
            try:
                state = await self.engine.export_state(engine_id)
            except Exception:
                # It goes on elsewhere all the same, and its tokens are computed again.
                logger.exception("a request leaves without its state")
        if engine_id not in self._routes:  # It ended before it could leave, or was aborted.
            self._shelf.give_up()
            return
        ticket = ""
        if state is not None:
            ticket = self._shelf.put(state)
        else:
            self._shelf.give_up()
        self._routes[engine_id][2].left()
        peer.leave(stream, ticket)
        self._forget(engine_id)

    def _refusal(self) -> ErrorInfo | None:
        if self._draining:
            return ReplicaLost(f"replica {self._id} is stopping").info
        if self.engine is None:
            return ModelNotReady(f"replica {self._id} is still loading its model").info
        return None

    def _abort(self, engine_id: str) -> None:
        if engine_id in self._routes:
            self._routes[engine_id][2].aborted()
            self._forget(engine_id)
            assert self.engine is not None
            self.engine.abort(engine_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self, engine_id: str) -> None:
        del self._routes[engine_id]
        self._moved.set()

    def _drop(self, peer: Peer) -> None:
        for engine_id in [engine_id for engine_id, (owner, *_) in self._routes.items() if owner is peer]:
            self._abort(engine_id)

    def _stats(self) -> EngineStats:
        return self.engine.stats() if self.engine is not None else EngineStats()


async def _watch(silence: Silence) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_TICK)
        if silence.tick(loop.time()) > SILENCE_LIMIT:
            raise FrameError(f"the gateway was silent for {silence.seconds:.0f} s")
