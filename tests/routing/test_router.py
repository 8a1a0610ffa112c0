import asyncio
import time
from contextlib import aclosing

import pytest
from msgspec.structs import replace
from tests.routing.conftest import STEP, LocalReplica, StartReplica, Table

from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.errors import (
    ClusterUnavailable,
    EngineError,
    InvalidRequest,
    ModelFileError,
    ModelNotFound,
    ModelNotReady,
    ReplicaLost,
)
from xinfer_runtime.messages import Delta, EmbedRequest, GenerateRequest, ReplicaRequest, SamplingParams
from xinfer_runtime.models import Replica, ReplicaState
from xinfer_runtime.routing.link import Link
from xinfer_runtime.routing.router import Router


def request(prompt: str = "1", tokens: int = 10, request_id: str = "r") -> GenerateRequest:
    return GenerateRequest(id=request_id, prompt=prompt, sampling=SamplingParams(max_tokens=tokens))


async def answer(router: Router, asked: ReplicaRequest, uid: str = "m") -> list[Delta]:
    async with aclosing(router.generate(uid, asked)) as deltas:
        return [delta async for delta in deltas]


def tokens_of(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.token_ids]


async def until(condition: object, seconds: float = 2.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def two_replicas(start_replica: StartReplica, table: Table, router: Router) -> tuple[LocalReplica, LocalReplica]:
    first, second = await start_replica("m-0", "token-0"), await start_replica("m-1", "token-1")
    table.show(first.row, second.row)
    await until(lambda: len(router.stats("m")) == 2)
    return first, second


async def test_an_answer_comes_whole(start_replica: StartReplica, table: Table, router: Router) -> None:
    table.show((await start_replica()).row)
    deltas = await answer(router, request())
    assert tokens_of(deltas) == list(range(1000, 1010))
    assert {delta.id for delta in deltas} == {"r"}
    assert deltas[-1].usage is not None


async def test_requests_spread_over_the_replicas(start_replica: StartReplica, table: Table, router: Router) -> None:
    first, second = await two_replicas(start_replica, table, router)
    await asyncio.gather(*(answer(router, request(f"{n}", 20)) for n in range(1, 21)))
    assert len(first.engine.submitted) == len(second.engine.submitted) == 10


async def test_what_other_gateways_do_counts(
    start_replica: StartReplica, table: Table, router: Router, credentials: TlsCredentials
) -> None:
    first, second = await two_replicas(start_replica, table, router)
    row = first.row
    other = await Link.connect(row.address, row.token, row.id, credentials.client_context())
    for n in range(5):
        other.submit(request(f"{n}", 100_000))
    mine = asyncio.create_task(answer(router, request("9", 200)))
    await until(lambda: router.stats("m")["m-0"].running >= 5)
    await asyncio.gather(*(answer(router, request(f"{n}", 1)) for n in range(4)))
    assert len(second.engine.submitted) >= 4
    mine.cancel()
    await other.close()


async def test_a_stream_goes_on_at_another_replica(start_replica: StartReplica, table: Table, router: Router) -> None:
    replicas = await two_replicas(start_replica, table, router)
    asked = [asyncio.create_task(answer(router, request(f"{n}", 100, f"r{n}"))) for n in range(1, 17)]
    await asyncio.sleep(20 * STEP)
    assert replicas[0].engine.running
    await replicas[0].kill()
    for n, deltas in enumerate(await asyncio.gather(*asked), 1):
        assert tokens_of(deltas) == [n * 1000 + index for index in range(100)]
        assert "".join(delta.text for delta in deltas) == "".join(f"{n}:{index} " for index in range(100))
    assert any(again.resume for again in replicas[1].engine.submitted)


async def test_a_stream_waits_for_its_only_replica_to_restart(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    replica = await start_replica()
    table.show(replica.row)
    task = asyncio.create_task(answer(router, request(tokens=60)))
    await until(lambda: bool(replica.engine.running))
    await asyncio.sleep(10 * STEP)
    await replica.kill()
    table.show(replace(replica.row, state=ReplicaState.LOADING, address="", token="", message="died; restarting"))
    await asyncio.sleep(0.2)
    assert not task.done()
    restarted = await start_replica("m-0", "a new token")
    table.show(restarted.row)
    assert tokens_of(await task) == list(range(1000, 1060))
    resumed = restarted.engine.submitted[0]
    assert len(resumed.resume) >= 5
    assert resumed.resume_mu == len(resumed.resume) - 1


async def test_what_a_caller_gave_to_resume_comes_before_what_was_sent(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    replicas = await two_replicas(start_replica, table, router)
    task = asyncio.create_task(answer(router, replace(request(tokens=60), resume=(1000, 1001))))
    await asyncio.sleep(10 * STEP)
    serving, other = replicas if replicas[0].engine.running else replicas[::-1]
    await serving.kill()
    assert tokens_of(await task) == list(range(1002, 1060))
    assert other.engine.submitted[0].resume[:2] == (1000, 1001)


async def test_the_stream_is_given_up_when_no_replica_comes_back(
    start_replica: StartReplica, table: Table, credentials: object
) -> None:
    router = Router(table, wait=0.3)
    replica = await start_replica()
    table.show(replica.row)
    task = asyncio.create_task(answer(router, request(tokens=1000)))
    await until(lambda: bool(replica.engine.running))
    await replica.kill()
    table.show(replace(replica.row, state=ReplicaState.LOADING, message="restarting"))
    with pytest.raises(ReplicaLost, match="restarting"):
        await task
    await router.close()


async def test_a_request_that_kills_its_replicas_is_given_up(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    kills: list[asyncio.Task[None]] = []

    def show(replica: LocalReplica) -> None:
        def die(asked: GenerateRequest) -> None:
            if asked.prompt == "666":
                replica.engine.emits = False
                kills.append(asyncio.create_task(die_and_restart()))

        async def die_and_restart() -> None:
            await replica.kill()
            show(await start_replica("m-0", f"token {len(kills)}"))

        replica.engine.on_submit = die
        table.show(replica.row)

    show(await start_replica())
    with pytest.raises(ReplicaLost, match="3 replicas"):
        await answer(router, request("666", 1000))
    assert len(kills) == 3
    await asyncio.gather(*kills)
    assert tokens_of(await answer(router, request())) == list(range(1000, 1010))


async def test_a_stopping_replica_passes_its_requests_on(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    first, _ = await two_replicas(start_replica, table, router)
    drained = asyncio.create_task(first.server.drain(1.0))
    await asyncio.sleep(0)
    answers = await asyncio.gather(*(answer(router, request(f"{n}")) for n in range(1, 9)))
    assert [len(tokens_of(deltas)) for deltas in answers] == [10] * 8
    assert not first.engine.submitted
    await drained


async def test_a_replica_that_leaves_the_table_finishes_its_streams(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    replica = await start_replica()
    table.show(replica.row)
    task = asyncio.create_task(answer(router, request(tokens=60)))
    await until(lambda: bool(replica.engine.running))
    table.show(replace(replica.row, state=ReplicaState.DRAINING))
    assert len(tokens_of(await task)) == 60
    await until(lambda: not replica.server._peers)


async def test_closing_the_iterator_frees_the_sequence(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    replica = await start_replica()
    table.show(replica.row)
    deltas = router.generate("m", request(tokens=100_000))
    await anext(deltas)
    await deltas.aclose()
    await until(lambda: not replica.engine.running, 1.0)


async def test_cancelling_the_reader_frees_the_sequence(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    replica = await start_replica()
    table.show(replica.row)
    task = asyncio.create_task(answer(router, request(tokens=100_000)))
    await until(lambda: bool(replica.engine.running))
    task.cancel()
    await until(lambda: not replica.engine.running, 1.0)


async def test_a_slow_reader_gets_merged_deltas(start_replica: StartReplica, table: Table, router: Router) -> None:
    table.show((await start_replica()).row)
    deltas = []
    async with aclosing(router.generate("m", request(tokens=40))) as answering:
        async for delta in answering:
            deltas.append(delta)
            await asyncio.sleep(15 * STEP)
    assert tokens_of(deltas) == list(range(1000, 1040))
    assert len(deltas) < 15


async def test_an_engines_error_is_raised_as_what_it_is(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    table.show((await start_replica()).row)
    with pytest.raises(InvalidRequest, match="a bad prompt"):
        await answer(router, request("bad"))
    with pytest.raises(EngineError):
        await answer(router, request("bug"))


async def test_an_unknown_model_is_not_found_at_once(table: Table, router: Router) -> None:
    table.show(Replica(id="m-0", uid="m"))
    started = time.monotonic()
    with pytest.raises(ModelNotFound, match=r"'other'.*those that do: m"):
        await answer(router, request(), uid="other")
    assert time.monotonic() - started < 1.0


async def test_an_unknown_model_is_no_news_while_the_cluster_is_lost(table: Table, router: Router) -> None:
    table.connected = False
    with pytest.raises(ClusterUnavailable):
        await answer(router, request())


async def test_a_request_waits_while_its_model_loads(start_replica: StartReplica, table: Table, router: Router) -> None:
    replica = await start_replica()
    table.show(replace(replica.row, state=ReplicaState.LOADING, token=""))
    task = asyncio.create_task(answer(router, request()))
    await asyncio.sleep(0.1)
    table.show(replica.row)
    assert len(tokens_of(await task)) == 10


async def test_a_model_that_loads_too_long_is_not_ready(table: Table) -> None:
    router = Router(table, wait=0.1)
    table.show(Replica(id="m-0", uid="m", state=ReplicaState.LOADING, message="reading tensors"))
    with pytest.raises(ModelNotReady, match="loading, reading tensors"):
        await answer(router, request())
    await router.close()


async def test_a_failed_model_is_not_waited_for(table: Table, router: Router) -> None:
    error = ModelFileError("m.gguf is truncated")
    table.show(Replica(id="m-0", uid="m", state=ReplicaState.FAILED, message=error.message, error=error.info))
    started = time.monotonic()
    with pytest.raises(ModelNotReady, match=r"m\.gguf is truncated"):
        await answer(router, request())
    assert time.monotonic() - started < 1.0


async def test_a_model_that_is_being_terminated_takes_no_request(table: Table, router: Router) -> None:
    table.show(Replica(id="m-0", uid="m", state=ReplicaState.DRAINING))
    with pytest.raises(ModelNotFound, match="being terminated"):
        await answer(router, request())


async def test_a_closed_router_ends_its_requests_at_once(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    replica = await start_replica()
    table.show(replica.row)
    task = asyncio.create_task(answer(router, request(tokens=100_000)))
    await until(lambda: bool(replica.engine.running))
    await router.close()
    with pytest.raises(ReplicaLost, match="shutting down"):
        await asyncio.wait_for(task, 1.0)


async def test_a_model_that_crashed_is_waited_for(start_replica: StartReplica, table: Table, router: Router) -> None:
    error = EngineError("died; restarting in 1 s").info
    table.show(Replica(id="m-0", uid="m", state=ReplicaState.FAILED, message=error.message, error=error))
    task = asyncio.create_task(answer(router, request()))
    await asyncio.sleep(0.05)
    table.show((await start_replica()).row)
    assert len(tokens_of(await task)) == 10


async def test_a_long_answer_may_lose_many_replicas(start_replica: StartReplica, table: Table, router: Router) -> None:
    replica = await start_replica()
    table.show(replica.row)
    task = asyncio.create_task(answer(router, request(tokens=120)))
    for n in range(5):
        await until(lambda replica=replica: bool(replica.engine.running))  # type: ignore[misc]
        await asyncio.sleep(8 * STEP)
        await replica.kill()
        replica = await start_replica("m-0", f"token {n}")
        table.show(replica.row)
    assert tokens_of(await task) == list(range(1000, 1120))


async def test_a_terminated_model_ends_waiting_requests(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    replica = await start_replica()
    table.show(replica.row)
    task = asyncio.create_task(answer(router, request(tokens=100_000)))
    await until(lambda: bool(replica.engine.running))
    table.remove()
    await replica.kill()
    with pytest.raises(ModelNotFound, match="terminated while it answered"):
        await task


async def test_vectors_are_computed_again_where_a_replica_is_lost(
    start_replica: StartReplica, table: Table, router: Router
) -> None:
    replicas = await two_replicas(start_replica, table, router)
    for replica in replicas:
        replica.engine.emits = False
    wanted = EmbedRequest(id="e", inputs=("one", (1, 2)), dimensions=3)
    task = asyncio.create_task(answer(router, wanted))
    await until(lambda: any(replica.engine.embedding for replica in replicas))
    serving, other = replicas if replicas[0].engine.embedding else replicas[::-1]
    await serving.kill()
    await until(lambda: bool(other.engine.embedding))
    [again] = other.engine.embedding.values()
    assert (again.inputs, again.dimensions) == (wanted.inputs, 3)
    other.engine.emits = True
    [delta] = await task
    assert (delta.id, delta.vectors) == ("e", (b"one", b"(1, 2)"))
