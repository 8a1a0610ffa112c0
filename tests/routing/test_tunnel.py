"""Replicas that a gateway cannot reach directly."""

from msgspec.structs import replace
from tests.routing.conftest import StartReplica, Table
from tests.routing.test_router import answer, request, tokens_of, until

from xinfer_runtime.routing.router import Router

BEYOND_REACH = "127.0.0.1:1"


async def test_a_replica_that_is_not_reached_directly_is_reached_through_the_tunnel(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    row = (await start_replica()).row
    table.tunnels[BEYOND_REACH] = int(row.address.rpartition(":")[2])
    table.show(replace(row, address=BEYOND_REACH))
    assert tokens_of(await answer(router, request())) == list(range(1000, 1010))


async def test_a_replica_without_any_way_is_tried_again(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    row = (await start_replica()).row
    table.show(replace(row, address=BEYOND_REACH))
    table.tunnels[BEYOND_REACH] = int(row.address.rpartition(":")[2])
    await until(lambda: len(router.stats("m")) == 1, 30)


async def test_replicas_within_reach_are_not_asked_for_through_the_tunnel(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    row = (await start_replica()).row
    table.tunnels[row.address] = 1
    table.show(row)
    assert tokens_of(await answer(router, request())) == list(range(1000, 1010))
