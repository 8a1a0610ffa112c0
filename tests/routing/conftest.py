"""Replicas in this process: the real server and TLS, with an engine that counts."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
from hypothesis import settings

from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.replica_server import ReplicaServer
from xinfer_runtime.engines.base import EmitStep, Engine, ReportProgress
from xinfer_runtime.engines.sequence_state import SequenceState
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Delta, EmbedRequest, FinishReason, GenerateRequest, ReplicaRequest, Usage
from xinfer_runtime.models import EngineStats, ModelInfo, ModelSpec, ModelStatus, Replica, ReplicaState
from xinfer_runtime.routing.link import Link
from xinfer_runtime.routing.router import Router

# A busy machine is no failure of what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

STEP = 0.003
INFO = ModelInfo(context_length=1000, vocab_size=10, abilities=("chat",))


class CountingEngine(Engine):
    """Its i-th token for prompt "7" is 7000 + i, with the text "7:i "; one token for everybody each step."""

    def __init__(self) -> None:
        self.running: dict[str, tuple[GenerateRequest, int]] = {}
        self.submitted: list[GenerateRequest] = []
        self.states: dict[str, SequenceState | None] = {}
        """What each request brought, by its prompt, and what is given of those that leave."""
        self.state_bytes = 0
        self.embedding: dict[str, EmbedRequest] = {}
        self.aborted: list[str] = []
        self.emits = True
        self.on_submit: Callable[[GenerateRequest], None] = lambda _request: None
        self._emit: EmitStep = lambda _deltas: None
        self._task: asyncio.Task[None] | None = None

    async def load(self, spec: ModelSpec, emit: EmitStep, progress: ReportProgress) -> ModelInfo:
        self._emit = emit
        self._task = asyncio.create_task(self._steps())
        return INFO

    def submit(self, request: ReplicaRequest, state: SequenceState | None = None) -> None:
        if isinstance(request, EmbedRequest):
            self.embedding[request.id] = request
            return
        self.submitted.append(request)
        self.states[request.prompt or ""] = state
        self.on_submit(request)
        if request.prompt == "bad":
            raise InvalidRequest("a bad prompt")
        if request.prompt == "bug":
            raise ZeroDivisionError
        self.running[request.id] = (request, len(request.resume))

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        self.running.pop(request_id, None)
        self.embedding.pop(request_id, None)

    async def export_state(self, request_id: str) -> SequenceState | None:
        running = self.running.pop(request_id, None)
        if running is None or not self.state_bytes:
            return None
        prompt, index = running[0].prompt or "", running[1]
        cells = memoryview(f"{prompt}:{index}".encode().ljust(self.state_bytes))
        return SequenceState(identity="", adapter="", tokens=memoryview(bytes(4)), cells=cells)

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self.running))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _steps(self) -> None:
        while True:
            await asyncio.sleep(STEP)
            if not self.emits:
                continue
            vectors = [_vectors(request) for request in self.embedding.values()]
            self.embedding.clear()
            self._emit([*vectors, *(self._step(request_id) for request_id in list(self.running))])

    def _step(self, request_id: str) -> Delta:
        request, index = self.running[request_id]
        limit = request.sampling.max_tokens or 10
        last = index + 1 >= limit
        self.running[request_id] = (request, index + 1)
        if last:
            del self.running[request_id]
        return Delta(
            request_id,
            text=f"{request.prompt}:{index} ",
            token_ids=(int(request.prompt or 0) * 1000 + index,),
            finish_reason=FinishReason.LENGTH if last else None,
            usage=Usage(1, limit) if last else None,
            mirostat_mu=float(index),
        )


def _vectors(request: EmbedRequest) -> Delta:
    """Each text's own bytes in place of a vector."""
    found = tuple(str(text).encode() for text in request.inputs)
    return Delta(request.id, finish_reason=FinishReason.STOP, usage=Usage(len(found), 0), vectors=found)


@dataclass
class LocalReplica:
    """A replica server in this process. `row` is what the table would say about it."""

    server: ReplicaServer
    engine: CountingEngine
    row: Replica

    async def kill(self) -> None:
        """As a dead process would be to its gateways: no word, and nobody listens any more."""
        await self.server.close()
        await self.engine.close()


@dataclass
class Table:
    """What the router sees of a session."""

    credentials: TlsCredentials
    statuses: dict[str, ModelStatus] = field(default_factory=dict)
    connected: bool = True
    tunnels: dict[str, int] = field(default_factory=dict)
    """Ports of this machine, by the address that a tunnel to them is asked for."""
    callbacks: list[Callable[[str], None]] = field(default_factory=list)

    @property
    def models(self) -> Mapping[str, ModelStatus]:
        return MappingProxyType(self.statuses)

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    async def tunnel(self, address: str) -> socket.socket:
        if address not in self.tunnels:
            raise ConnectionRefusedError("no replica has this address")
        way = socket.create_connection(("127.0.0.1", self.tunnels[address]))
        way.setblocking(False)
        return way

    def show(self, *rows: Replica, uid: str = "m") -> None:
        self.statuses[uid] = ModelStatus(spec=ModelSpec(uid=uid, name=uid), replicas=rows)
        self.tell(uid)

    def remove(self, uid: str = "m") -> None:
        del self.statuses[uid]
        self.tell(uid)

    def tell(self, uid: str) -> None:
        for callback in tuple(self.callbacks):
            callback(uid)


@pytest.fixture(scope="session")
def credentials() -> TlsCredentials:
    return TlsCredentials.create()


StartReplica = Callable[..., Awaitable[LocalReplica]]


@pytest.fixture
async def start_replica(credentials: TlsCredentials) -> AsyncIterator[StartReplica]:
    """Starts replicas of model "m" with the ids and tokens that it is given."""
    started: list[LocalReplica] = []

    async def start(replica_id: str = "m-0", token: str = "secret") -> LocalReplica:
        engine = CountingEngine()
        server = ReplicaServer(
            replica_id, token, credentials.server_context(), "127.0.0.1", credentials.client_context()
        )
        address = await server.start()
        await engine.load(ModelSpec(uid="m", name="m"), server.emit, lambda *_: None)
        server.engine = engine
        row = Replica(id=replica_id, uid="m", state=ReplicaState.READY, address=address, token=token, pid=1)
        replica = LocalReplica(server, engine, row)
        started.append(replica)
        return replica

    yield start
    for replica in started:
        await replica.kill()


@pytest.fixture
def table(credentials: TlsCredentials) -> Table:
    return Table(credentials)


@pytest.fixture
async def router(table: Table) -> AsyncIterator[Router]:
    router = Router(table, wait=2.0)
    yield router
    await router.close()


Connect = Callable[[LocalReplica], Awaitable[Link]]


@pytest.fixture
async def connect(credentials: TlsCredentials) -> AsyncIterator[Connect]:
    async with contextlib.AsyncExitStack() as stack:

        async def open_link(replica: LocalReplica) -> Link:
            row = replica.row
            link = await Link.connect(row.address, row.token, row.id, credentials.client_context())
            stack.push_async_callback(link.close)
            return link

        yield open_link
