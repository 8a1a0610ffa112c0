"""What is lost while a stream moves from replica to replica costs time, and nothing else."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from msgspec.structs import replace
from tests.routing.conftest import INFO, LocalReplica, StartReplica, Table
from tests.routing.test_router import answer, request, tokens_of, until

from xinfer_runtime.cluster import replica_server
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.state_fetch import FETCH_SECONDS, fetch_state
from xinfer_runtime.engines.sequence_state import SequenceState
from xinfer_runtime.messages import Delta
from xinfer_runtime.models import ReplicaState
from xinfer_runtime.routing.frames import StateAt
from xinfer_runtime.routing.router import Router

MOVABLE = replace(INFO, state_identity="one launch")
STATE = 3 << 20
"""More than one piece."""
TOKENS = 100
WHOLE = [1000 + index for index in range(TOKENS)]


async def never(reached: asyncio.Event) -> None:
    reached.set()
    await asyncio.Event().wait()


@dataclass
class Move:
    """A stream that one replica, still the only one, has begun; and another replica that can go on with it."""

    first: LocalReplica
    second: LocalReplica
    stream: "asyncio.Task[list[Delta]]"
    table: Table

    def begin(self) -> None:
        self.table.show(replace(self.first.row, state=ReplicaState.DRAINING), self.second.row)


async def movable(start: StartReplica, number: int) -> LocalReplica:
    replica = await start(f"m-{number}", f"token {number}")
    replica.row = replace(replica.row, info=MOVABLE)
    replica.engine.state_bytes = STATE
    return replica


@pytest.fixture
async def move(start_replica: StartReplica, table: Table, router: Router) -> Move:
    first = await movable(start_replica, 0)
    table.show(first.row)
    stream = asyncio.create_task(answer(router, request("1", TOKENS)))
    await until(lambda: any(count > 3 for _, count in first.engine.running.values()))
    return Move(first, await movable(start_replica, 1), stream, table)


async def test_the_next_replica_dies_before_it_has_the_state(
    move: Move, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()
    monkeypatch.setattr(replica_server, "fetch_state", lambda _where, _context: never(reached))
    move.begin()
    await asyncio.wait_for(reached.wait(), 30)
    third = await movable(start_replica, 2)
    move.table.show(third.row)
    await move.second.kill()

    assert tokens_of(await move.stream) == WHOLE
    assert not move.second.engine.submitted
    assert third.engine.states == {"1": None}
    assert third.engine.submitted[0].resume


async def test_the_replica_dies_before_it_gives_the_state(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = asyncio.Event()
    monkeypatch.setattr(move.first.engine, "export_state", lambda _id: never(reached))
    move.begin()
    await asyncio.wait_for(reached.wait(), 30)
    await move.first.kill()

    assert tokens_of(await move.stream) == WHOLE
    assert move.second.engine.states == {"1": None}


async def test_the_replica_dies_in_the_middle_of_the_state(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SequenceState.pieces
    given: list[int] = []

    def some(state: SequenceState) -> Iterator[bytes]:
        pieces = whole(state)
        for _ in range(3):
            piece = next(pieces)
            given.append(len(piece))
            yield piece
        raise ConnectionResetError("the process is gone")

    monkeypatch.setattr(SequenceState, "pieces", some)
    move.begin()

    assert tokens_of(await move.stream) == WHOLE
    assert 0 < sum(given) < STATE
    assert move.second.engine.states == {"1": None}


async def test_an_engine_that_fails_to_give_the_state_loses_no_stream(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_id: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(move.first.engine, "export_state", fail)
    move.begin()

    assert tokens_of(await move.stream) == WHOLE
    assert move.second.engine.states == {"1": None}


async def test_a_replica_that_nobody_reaches_is_not_waited_for_long(credentials: TlsCredentials) -> None:
    silent = await asyncio.start_server(lambda _reader, writer: writers.append(writer), "127.0.0.1", 0)
    writers: list[asyncio.StreamWriter] = []
    host, port = silent.sockets[0].getsockname()
    began = time.monotonic()
    try:
        state = await fetch_state(StateAt(f"{host}:{port}", "m-0", "secret", "ticket"), credentials.client_context())
    finally:
        silent.close()
        for writer in writers:
            writer.transport.abort()
    assert state is None
    assert time.monotonic() - began < FETCH_SECONDS
