"""Where the router sends conversations, and whose requests it sends first."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from tests.routing.conftest import INFO, LocalReplica, StartReplica, Table
from tests.routing.test_router import answer, request, tokens_of, until

from xinfer_runtime.errors import DeadlineExceeded
from xinfer_runtime.messages import ChatMessage, GenerateRequest, Priority, SamplingParams
from xinfer_runtime.models import Replica
from xinfer_runtime.routing.choice import Choice, Reason
from xinfer_runtime.routing.fair_queue import Flow
from xinfer_runtime.routing.router import Router
from xinfer_runtime.routing.router_watch import RouterWatch


def ready(replica: LocalReplica, slots: int = 0) -> Replica:
    return replace(replica.row, info=replace(INFO, prefix_cache=True, max_sequences=slots))


class Record(RouterWatch):
    def __init__(self) -> None:
        self.choices: list[Choice] = []
        self.waits: list[tuple[Priority, float]] = []

    def routed(self, uid: str, choice: Choice) -> None:
        self.choices.append(choice)

    def queued(self, uid: str, priority: Priority, seconds: float) -> None:
        self.waits.append((priority, seconds))


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
async def watched(table: Table, record: Record) -> AsyncIterator[Router]:
    router = Router(table, wait=10.0, watch=record)
    yield router
    await router.close()


def turn(conversation: int, turns: int, tokens: int = 1) -> GenerateRequest:
    """The `turns`-th turn of a conversation that nobody else has."""
    texts = [f"In conversation {conversation}, turn {n}: " + "and so on. " * 40 for n in range(turns)]
    return GenerateRequest(
        id="r",
        messages=tuple(ChatMessage(role="user", content=text) for text in texts),
        sampling=SamplingParams(max_tokens=tokens),
    )


async def chat(router: Router, asked: GenerateRequest) -> None:
    """The counting engine's prompts are numbers; that of messages counts as 0."""
    await answer(router, asked)


async def three(start_replica: StartReplica, table: Table, router: Router) -> list[LocalReplica]:
    replicas = [await start_replica(f"m-{n}", f"token-{n}") for n in range(3)]
    table.show(*(ready(replica) for replica in replicas))
    await until(lambda: len(router.stats("m")) == 3, 30)
    return replicas


async def test_conversations_stay_where_their_cache_is(
    start_replica: StartReplica, table: Table, watched: Router, record: Record
) -> None:
    replicas = await three(start_replica, table, watched)
    for turns in range(1, 4):
        for conversation in range(9):
            await chat(watched, turn(conversation, turns))
    for replica in replicas:
        seen = Counter(
            next(iter(message.content or "" for message in asked.messages or ())) for asked in replica.engine.submitted
        )
        assert set(seen.values()) == {3}, "all three turns of the conversations that are here"
        assert len(seen) == 3, "and conversations are spread"
    assert [choice.reason for choice in record.choices] == [Reason.LOAD] * 9 + [Reason.PREFIX] * 18
    assert min(choice.cached for choice in record.choices[9:]) > 50


async def test_a_restarted_replica_has_nothing_cached(
    start_replica: StartReplica, table: Table, watched: Router, record: Record
) -> None:
    replicas = await three(start_replica, table, watched)
    await chat(watched, turn(1, 1))
    there = next(n for n, replica in enumerate(replicas) if replica.engine.submitted)
    await replicas[there].kill()
    replicas[there] = await start_replica(f"m-{there}", "another token")
    table.show(*(ready(replica) for replica in replicas))
    await until(lambda: len(watched.stats("m")) == 3, 30)
    await chat(watched, turn(1, 2))
    assert record.choices[-1].reason is Reason.LOAD
    assert record.choices[-1].cached == 0


async def test_a_replica_gets_little_more_than_it_computes_at_a_time(
    start_replica: StartReplica, table: Table, watched: Router
) -> None:
    replica = await start_replica()
    table.show(ready(replica, slots=4))
    await until(lambda: watched.stats("m"), 30)
    replica.engine.emits = False
    asked = [asyncio.ensure_future(answer(watched, request("1", tokens=1))) for _ in range(10)]
    await until(lambda: len(replica.engine.submitted) == 6 and watched.waiting("m") == 4, 30)
    replica.engine.emits = True
    await asyncio.gather(*asked)
    assert len(replica.engine.submitted) == 10


async def test_users_take_turns_and_interactive_requests_go_ahead_of_batch(
    start_replica: StartReplica, table: Table, watched: Router, record: Record
) -> None:
    replica = await start_replica()
    table.show(ready(replica, slots=1))
    await until(lambda: watched.stats("m"), 30)
    replica.engine.emits = False

    async def ask(prompt: str, user: str, priority: Priority) -> None:
        asked = replace(request(prompt, tokens=5), priority=priority)
        async for _ in watched.generate("m", asked, Flow(user)):
            pass

    tasks = [asyncio.ensure_future(ask("1", "many", Priority.INTERACTIVE)) for _ in range(9)]
    await until(lambda: watched.waiting("m") == 6, 30)
    tasks += [asyncio.ensure_future(ask("2", "few", Priority.BATCH))]
    tasks += [asyncio.ensure_future(ask("3", "few", Priority.INTERACTIVE)) for _ in range(3)]
    await until(lambda: watched.waiting("m") == 10, 30)
    replica.engine.emits = True
    await asyncio.gather(*tasks)
    order = [asked.prompt for asked in replica.engine.submitted][3:]
    assert order[-1] == "2", "batch last"
    assert order.index("3") <= 1
    assert sorted(order[:6]) == ["1"] * 3 + ["3"] * 3, "both users have their turns"
    assert {priority for priority, _ in record.waits} == set(Priority)
    assert max(seconds for _, seconds in record.waits) > 0


async def test_a_deadline_ends_a_request_that_waits_and_one_that_runs(
    start_replica: StartReplica, table: Table, watched: Router
) -> None:
    replica = await start_replica()
    table.show(ready(replica, slots=1))
    await until(lambda: watched.stats("m"), 30)
    running = asyncio.ensure_future(answer(watched, request("1", tokens=1_000_000)))
    await until(lambda: replica.engine.running, 30)
    with pytest.raises(DeadlineExceeded):
        await answer(watched, replace(request("2", tokens=1_000_000), timeout=0.2))
    await until(lambda: len(replica.engine.running) == 1, 30)
    assert replica.engine.submitted[1].timeout is not None
    assert replica.engine.submitted[1].timeout <= 0.2
    replica.engine.emits = False
    others = [asyncio.ensure_future(answer(watched, request("3", tokens=1))) for _ in range(2)]
    await until(lambda: len(replica.engine.running) == 3, 30)
    before = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="had room"):
        await answer(watched, replace(request("4"), timeout=0.2))
    assert time.monotonic() - before < 5
    assert watched.waiting("m") == 0
    replica.engine.emits = True
    assert tokens_of((await asyncio.gather(*others))[0]) == [3000]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
