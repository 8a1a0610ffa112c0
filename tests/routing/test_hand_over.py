"""Streams leave a replica that is to go, with what was computed of them, and go on at another one."""

import asyncio
import ssl
from contextlib import aclosing

import pytest
from msgspec.structs import replace
from tests.routing.conftest import INFO, LocalReplica, StartReplica, Table
from tests.routing.test_router import answer, request, tokens_of, until

from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.state_fetch import fetch_state
from xinfer_runtime.cluster.state_shelf import StateShelf
from xinfer_runtime.engines.sequence_state import SequenceState
from xinfer_runtime.messages import Delta
from xinfer_runtime.models import ModelInfo, ReplicaState
from xinfer_runtime.routing.frames import StateAt
from xinfer_runtime.routing.router import Router

MOVABLE = replace(INFO, state_identity="one launch")
STATE = 3 << 20
"""More than one piece."""


async def replicas(
    start: StartReplica, table: Table, router: Router, *infos: ModelInfo, state_bytes: int = STATE
) -> list[LocalReplica]:
    """Ready replicas that turned out to be these, and the router's links to them."""
    started = []
    for number, info in enumerate(infos):
        replica = await start(f"m-{number}", f"token {number}")
        replica.row = replace(replica.row, info=info)
        replica.engine.state_bytes = state_bytes
        started.append(replica)
    table.show(*(each.row for each in started))
    await until(lambda: len(router._links.live("m")) == len(started))
    return started


def leaves(table: Table, leaving: LocalReplica, *others: LocalReplica) -> None:
    table.show(replace(leaving.row, state=ReplicaState.DRAINING), *(each.row for each in others))


async def begun(
    router: Router, replica: LocalReplica, count: int, tokens: int = 100
) -> "list[asyncio.Task[list[Delta]]]":
    """So many streams that this replica, the only one, has begun to answer."""
    tasks = [asyncio.create_task(answer(router, request(f"{n}", tokens))) for n in range(1, count + 1)]
    await until(lambda: len(replica.engine.running) == count and all(n > 3 for _, n in replica.engine.running.values()))
    return tasks


async def test_streams_go_on_with_what_was_computed(start_replica: StartReplica, table: Table, router: Router) -> None:
    (first,) = await replicas(start_replica, table, router, MOVABLE)
    tasks = await begun(router, first, 12)
    second = await start_replica("m-1", "another token")
    second.row = replace(second.row, info=MOVABLE)
    leaves(table, first, second)
    drained = asyncio.create_task(first.server.drain(5.0))
    answers = await asyncio.gather(*tasks)

    for n, deltas in enumerate(answers, 1):
        assert tokens_of(deltas) == [n * 1000 + index for index in range(100)]
    assert not first.engine.running
    assert len(second.engine.submitted) == 12
    for asked in second.engine.submitted:
        state = second.engine.states[asked.prompt or ""]
        assert state is not None
        assert bytes(state.cells) == f"{asked.prompt}:{len(asked.resume)}".encode().ljust(STATE)
    await drained
    await until(lambda: not first.server._peers)


async def test_a_stream_goes_on_without_a_state_where_there_is_none(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    first, second = await replicas(start_replica, table, router, MOVABLE, MOVABLE, state_bytes=0)
    tasks = [asyncio.create_task(answer(router, request(f"{n}", 100))) for n in (1, 2)]
    await until(lambda: all(each.engine.running for each in (first, second)))
    leaves(table, first, second)
    assert [len(tokens_of(deltas)) for deltas in await asyncio.gather(*tasks)] == [100, 100]
    assert len(second.engine.submitted) == 2
    assert set(second.engine.states.values()) == {None}


async def test_a_state_that_is_gone_is_computed_again(
    start_replica: StartReplica, table: Table, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the replica dies between giving the ticket and giving the state."""
    (first,) = await replicas(start_replica, table, router, MOVABLE)
    tasks = await begun(router, first, 1)
    monkeypatch.setattr(StateShelf, "put", lambda _shelf, _state: "a ticket for nothing")
    second = await start_replica("m-1", "another token")
    second.row = replace(second.row, info=MOVABLE)
    leaves(table, first, second)
    (deltas,) = await asyncio.gather(*tasks)
    assert tokens_of(deltas) == [1000 + index for index in range(100)]
    assert second.engine.states == {"1": None}
    assert second.engine.submitted[0].resume


@pytest.mark.parametrize("other", [INFO, replace(INFO, state_identity="another launch"), None])
async def test_streams_finish_where_they_are_if_nobody_can_go_on_with_them(
    start_replica: StartReplica, table: Table, router: Router, other: ModelInfo | None
) -> None:
    (first,) = await replicas(start_replica, table, router, MOVABLE)
    tasks = await begun(router, first, 2, tokens=60)
    others = []
    if other is not None:
        second = await start_replica("m-1", "another token")
        second.row = replace(second.row, info=other)
        others = [second]
    leaves(table, first, *others)
    assert [len(tokens_of(deltas)) for deltas in await asyncio.gather(*tasks)] == [60, 60]
    assert not any(each.engine.submitted for each in others)


async def test_a_full_replica_is_given_no_streams(start_replica: StartReplica, table: Table, router: Router) -> None:
    (first,) = await replicas(start_replica, table, router, MOVABLE)
    tasks = await begun(router, first, 12, tokens=150)
    second = await start_replica("m-1", "another token")
    second.row = replace(second.row, info=replace(MOVABLE, max_sequences=4))
    leaves(table, first, second)
    answers = await asyncio.gather(*tasks)
    assert [len(tokens_of(deltas)) for deltas in answers] == [150] * 12
    # Four, the few that it may have waiting, and those that were on their way when it was found full.
    assert 4 <= len(second.engine.submitted) <= 10


async def test_a_stream_whose_reader_is_slow_loses_nothing(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    (first,) = await replicas(start_replica, table, router, MOVABLE)
    second = await start_replica("m-1", "another token")
    second.row = replace(second.row, info=MOVABLE)
    async with aclosing(router.generate("m", request("1", 400))) as deltas:
        told = [await anext(deltas)]
        await until(lambda: any(n > 200 for _, n in first.engine.running.values()), 5.0)
        leaves(table, first, second)
        await until(lambda: not first.engine.running)
        told += [delta async for delta in deltas]
    assert tokens_of(told) == [1000 + index for index in range(400)]
    assert second.engine.states["1"] is not None


async def test_a_stream_that_is_aborted_while_it_leaves_is_gone(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    first, second = await replicas(start_replica, table, router, MOVABLE, MOVABLE)
    tasks = [asyncio.create_task(answer(router, request(f"{n}", 10_000))) for n in (1, 2)]
    await until(lambda: all(each.engine.running for each in (first, second)))
    leaves(table, first, second)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: not first.engine.running and not second.engine.running)
    await asyncio.wait_for(first.server.drain(15.0), 15.0)


async def test_a_state_is_given_once_and_to_nobody_without_the_token(
    start_replica: StartReplica, credentials: TlsCredentials
) -> None:
    replica = await start_replica()
    shelf, context = replica.server._shelf, credentials.client_context()

    async def fetch(ticket: str, token: str = "secret", tls: ssl.SSLContext = context) -> SequenceState | None:
        return await fetch_state(StateAt(replica.row.address, "m-0", token, ticket), tls)

    await shelf.reserve()
    cells = memoryview(bytes(range(256)) * 8192)
    kept = SequenceState(identity="i", adapter="a", tokens=memoryview(bytes(400)), cells=cells)
    ticket = shelf.put(kept)
    assert await fetch("another") is None
    assert await fetch(ticket, token="wrong") is None
    assert await fetch(ticket, tls=TlsCredentials.create().client_context()) is None
    given = await fetch(ticket)
    assert given is not None
    assert (given.identity, given.adapter, bytes(given.tokens), bytes(given.cells)) == (
        "i",
        "a",
        bytes(400),
        bytes(cells),
    )
    assert await fetch(ticket) is None


async def test_secrets_of_a_state_are_not_shown() -> None:
    assert "token" not in repr(StateAt("h:1", "m-0", "the token", "the ticket"))
    assert "ticket" not in repr(StateAt("h:1", "m-0", "the token", "the ticket"))
