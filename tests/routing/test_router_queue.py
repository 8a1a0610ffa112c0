"""What the router does with more requests than replicas have room for, and with replicas that misbehave."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from tests.routing.conftest import StartReplica, Table
from tests.routing.test_router import answer, request, tokens_of, two_replicas, until

from xinfer_runtime.errors import Overloaded, XinferError
from xinfer_runtime.routing import router as routing
from xinfer_runtime.routing.router import Router


@pytest.fixture
async def narrow(table: Table) -> AsyncIterator[Router]:
    """One request at a replica, two that wait."""
    router = Router(table, wait=2.0, streams=1, line=2)
    yield router
    await router.close()


async def test_requests_wait_for_room_in_their_order(start_replica: StartReplica, table: Table, narrow: Router) -> None:
    replica = await start_replica()
    table.show(replica.row)
    await until(lambda: narrow.stats("m"))
    answers = await asyncio.gather(*(answer(narrow, request(prompt, tokens=3)) for prompt in "123"))
    assert [tokens_of(deltas) for deltas in answers] == [[n * 1000, n * 1000 + 1, n * 1000 + 2] for n in (1, 2, 3)]
    assert [submitted.prompt for submitted in replica.engine.submitted] == ["1", "2", "3"]
    assert narrow.waiting("m") == 0


async def test_a_full_line_is_refused_and_a_client_that_leaves_makes_room(
    start_replica: StartReplica, table: Table, narrow: Router
) -> None:
    replica = await start_replica()
    table.show(replica.row)
    await until(lambda: narrow.stats("m"))
    replica.engine.emits = False
    asked = [asyncio.ensure_future(answer(narrow, request(prompt, tokens=2))) for prompt in "123"]
    await until(lambda: narrow.waiting("m") == 2)
    with pytest.raises(Overloaded, match="2 requests for 'm' are waiting"):
        await answer(narrow, request("4"))
    asked[1].cancel()
    await until(lambda: narrow.waiting("m") == 1)
    replica.engine.emits = True
    assert tokens_of(await asked[2]) == [3000, 3001]
    assert [submitted.prompt for submitted in replica.engine.submitted] == ["1", "3"]
    await asyncio.gather(*asked, return_exceptions=True)


async def test_a_request_that_finds_no_room_in_time_is_told_so(start_replica: StartReplica, table: Table) -> None:
    replica = await start_replica()
    table.show(replica.row)
    router = Router(table, wait=0.1, streams=1)
    await until(lambda: router.stats("m"))
    replica.engine.emits = False
    first = asyncio.ensure_future(answer(router, request("1")))
    await until(lambda: replica.engine.submitted)
    with pytest.raises(Overloaded, match="no replica of 'm' had room"):
        await answer(router, request("2"))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await router.close()


async def test_a_slow_replica_gets_no_new_request_while_there_is_another(
    start_replica: StartReplica, table: Table, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "SLOW_SECONDS", 0.05)
    slow, quick = await two_replicas(start_replica, table, router)
    slow.engine.emits = False
    stuck = [asyncio.ensure_future(answer(router, request("1"))) for _ in range(2)]
    await until(lambda: slow.engine.submitted)
    await asyncio.sleep(0.1)
    before = len(slow.engine.submitted)
    for _ in range(6):
        await answer(router, request("2", tokens=1))
    assert len(slow.engine.submitted) == before
    assert len(quick.engine.submitted) >= 6
    slow.engine.emits = True
    await asyncio.gather(*stuck)


async def test_a_replica_that_was_lost_twice_is_put_aside_and_probed(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    first, second = await two_replicas(start_replica, table, router)
    breakers = router._breakers
    for number in itertools.count():
        if "m-0" in breakers:
            break
        await answer(router, request(f"{number}", tokens=1))
    breaker = breakers["m-0"]
    now = asyncio.get_running_loop().time()
    breaker.failed(now - 1.0)
    breaker.failed(now)
    before = len(first.engine.submitted)
    for _ in range(6):
        await answer(router, request("2", tokens=1))
    assert len(first.engine.submitted) == before, "put aside"
    await asyncio.sleep(max(0.0, now + 1.0 - asyncio.get_running_loop().time()))
    for _ in range(4):
        await answer(router, request("3", tokens=1))
    assert len(first.engine.submitted) > before + 1, "probed, and trusted again"
    assert second.engine.submitted


async def test_a_request_that_fails_leaves_no_line_behind(table: Table, router: Router) -> None:
    with pytest.raises(XinferError):
        await answer(router, request())
    assert not router._traffic
