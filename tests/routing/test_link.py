import asyncio
import ssl
import time

import pytest
from tests.routing.conftest import STEP, Connect, CountingEngine, LocalReplica, StartReplica

from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.errors import InvalidRequest, ReplicaLost, RequestTooLarge
from xinfer_runtime.messages import Delta, GenerateRequest, SamplingParams
from xinfer_runtime.routing import frames
from xinfer_runtime.routing import link as link_module
from xinfer_runtime.routing.link import Link, Stream


def request(prompt: str = "1", tokens: int = 10) -> GenerateRequest:
    return GenerateRequest(id="r", prompt=prompt, sampling=SamplingParams(max_tokens=tokens))


async def rest(stream: Stream) -> list[Delta]:
    deltas = [await stream.receive("r")]
    while not deltas[-1].last:
        deltas.append(await stream.receive("r"))
    stream.abort()
    return deltas


def tokens_of(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.token_ids]


async def until(condition: object, seconds: float = 1.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_64_streams_at_once_are_not_mixed_up(start_replica: StartReplica, connect: Connect) -> None:
    link = await connect(await start_replica())
    answers = await asyncio.gather(*(rest(link.submit(request(f"{n}", 30))) for n in range(1, 65)))
    for n, deltas in enumerate(answers, 1):
        assert tokens_of(deltas) == [n * 1000 + index for index in range(30)]
        assert "".join(delta.text for delta in deltas) == "".join(f"{n}:{index} " for index in range(30))
        assert all(delta.id == "r" for delta in deltas)


async def test_an_aborted_stream_leaves_the_engine_at_once(start_replica: StartReplica, connect: Connect) -> None:
    replica = await start_replica()
    link = await connect(replica)
    stream = link.submit(request(tokens=100_000))
    await stream.receive("r")
    started = time.monotonic()
    stream.abort()
    await until(lambda: not replica.engine.running)
    assert time.monotonic() - started < 0.5
    assert link.outstanding == 0


async def test_a_finished_stream_is_not_aborted_in_the_engine(start_replica: StartReplica, connect: Connect) -> None:
    replica = await start_replica()
    await rest((await connect(replica)).submit(request()))
    await asyncio.sleep(5 * STEP)
    assert replica.engine.aborted == []


async def test_a_gateway_that_goes_away_frees_what_it_had(start_replica: StartReplica, connect: Connect) -> None:
    replica = await start_replica()
    link, other = await connect(replica), await connect(replica)
    link.submit(request(tokens=100_000))
    stays = other.submit(request("2", tokens=60))
    await stays.receive("r")
    await link.close()
    await until(lambda: len(replica.engine.running) == 1)
    assert tokens_of(await rest(stays))[-1] == 2059


async def test_a_stream_whose_reader_is_slow_is_held_back_alone(start_replica: StartReplica, connect: Connect) -> None:
    replica = await start_replica()
    link = await connect(replica)
    slow = link.submit(request("1", 400))
    fast = link.submit(request("2", 400))
    assert len(tokens_of(await rest(fast))) == 400
    await until(lambda: not replica.engine.running)
    await asyncio.sleep(10 * STEP)
    assert len(slow._deltas) == frames.INITIAL_CREDIT
    assert tokens_of(await rest(slow)) == [1000 + index for index in range(400)]


async def test_a_replica_that_ignores_credit_loses_its_link(start_replica: StartReplica, connect: Connect) -> None:
    replica = await start_replica()
    link = await connect(replica)
    link.submit(request(tokens=100_000))
    await until(lambda: bool(replica.engine.running))
    for peer in replica.server._peers:
        for stream in peer._streams.values():
            stream.credit = 1000
    await asyncio.wait_for(link.closed.wait(), 5.0)
    assert "without credit" in str(link.lost)


async def test_an_error_ends_its_own_request_alone(start_replica: StartReplica, connect: Connect) -> None:
    link = await connect(await start_replica())
    good = link.submit(request("3"))
    (bad,) = await rest(link.submit(request("bad")))
    (bug,) = await rest(link.submit(request("bug")))
    assert bad.error is not None
    assert bad.error.code == "invalid_request"
    assert bug.error is not None
    assert bug.error.code == "engine_error"
    assert len(tokens_of(await rest(good))) == 10


async def test_a_big_request_passes_and_one_too_big_is_refused(start_replica: StartReplica, connect: Connect) -> None:
    replica = await start_replica()
    link = await connect(replica)
    big = GenerateRequest(id="r", prompt="1", token_ids=tuple(range(1_000_000)), sampling=SamplingParams(max_tokens=2))
    assert len(tokens_of(await rest(link.submit(big)))) == 2
    assert replica.engine.submitted[0].token_ids == big.token_ids
    with pytest.raises(RequestTooLarge, match="32 MiB"):
        link.submit(request("x" * (33 << 20)))
    with pytest.raises(InvalidRequest, match="64 bits"):
        link.submit(GenerateRequest(id="r", prompt="1", template_kwargs={"a": [2**64]}))
    assert len(tokens_of(await rest(link.submit(request())))) == 10


async def test_a_dead_replica_is_known_at_once(start_replica: StartReplica, connect: Connect) -> None:
    replica = await start_replica()
    link = await connect(replica)
    stream = link.submit(request(tokens=100_000))
    await stream.receive("r")
    started = time.monotonic()
    await replica.kill()
    with pytest.raises(ReplicaLost, match="m-0"):
        await rest(stream)
    assert time.monotonic() - started < 0.5
    with pytest.raises(ReplicaLost):
        link.submit(request())


async def test_a_silent_replica_is_dead(
    start_replica: StartReplica, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_TICK", 0.05)
    monkeypatch.setattr(link_module, "PING_SECONDS", 0.2)
    monkeypatch.setattr(link_module, "SILENCE_LIMIT", 0.4)
    replica = await start_replica()
    link = await connect(replica)
    await asyncio.sleep(0.8)
    assert link.lost is None, "pings keep an idle link up"
    for peer in replica.server._peers:
        monkeypatch.setattr(peer.outbox, "put", lambda _message: None)
    await asyncio.wait_for(link.closed.wait(), 1.0)
    assert "silent" in str(link.lost)


async def test_every_change_of_the_load_is_told_within_half_a_second(
    start_replica: StartReplica, connect: Connect
) -> None:
    link = await connect(await start_replica())
    async with asyncio.timeout(0.5):
        stream = link.submit(request(tokens=100_000))
        await until(lambda: link.stats.running == 1)
    async with asyncio.timeout(0.5):
        stream.abort()
        await until(lambda: link.stats.running == 0)


async def refused(replica: LocalReplica, context: ssl.SSLContext, **changes: str) -> str:
    row = replica.row
    with pytest.raises(ReplicaLost) as error:
        await Link.connect(row.address, changes.get("token", row.token), changes.get("id", row.id), context)
    assert not replica.server._peers
    return str(error.value)


async def test_nobody_gets_in_without_the_token(start_replica: StartReplica, credentials: TlsCredentials) -> None:
    message = await refused(await start_replica(), credentials.client_context(), token="guess")
    assert "secret" not in message
    assert "guess" not in message


async def test_nobody_gets_in_with_another_clusters_certificate(start_replica: StartReplica) -> None:
    replica = await start_replica()
    stranger = TlsCredentials.create().client_context()
    stranger.verify_mode = ssl.CERT_NONE
    await refused(replica, stranger)


async def test_a_gateway_does_not_trust_another_clusters_replica(start_replica: StartReplica) -> None:
    await refused(await start_replica(), TlsCredentials.create().client_context())


async def test_an_address_that_now_belongs_to_another_replica_is_no_success(
    start_replica: StartReplica, credentials: TlsCredentials
) -> None:
    replica = await start_replica()
    with pytest.raises(ReplicaLost, match="no welcome"):
        await Link.connect(replica.row.address, replica.row.token, "m-7", credentials.client_context())


async def test_a_hostile_peer_with_a_certificate_gets_nothing_before_the_token(
    start_replica: StartReplica, credentials: TlsCredentials
) -> None:
    replica = await start_replica()
    host, _, port = replica.row.address.rpartition(":")
    for data in ((5000).to_bytes(4, "big"), b"\0\0\0\x05hello", b"\0\0\0\x01\x90"):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=credentials.client_context())
        writer.write(data)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(reader.readexactly(1), 2.0)
        writer.transport.abort()
    assert not replica.server._peers


async def test_a_replica_that_still_loads_says_so(start_replica: StartReplica, connect: Connect) -> None:
    replica = await start_replica()
    replica.server.engine = None
    (delta,) = await rest((await connect(replica)).submit(request()))
    assert delta.error is not None
    assert delta.error.code == "model_not_ready"


async def test_a_drained_replica_finishes_what_it_has_and_takes_no_more(
    start_replica: StartReplica, connect: Connect
) -> None:
    replica = await start_replica()
    link = await connect(replica)
    running = link.submit(request(tokens=50))
    await running.receive("r")
    drained = asyncio.create_task(replica.server.drain(5.0))
    await asyncio.sleep(0)
    (refusal,) = await rest(link.submit(request("2")))
    assert refusal.error is not None
    assert refusal.error.code == "replica_lost"
    assert tokens_of(await rest(running))[-1] == 1049
    await asyncio.wait_for(drained, 1.0)


async def test_a_drain_has_an_end(start_replica: StartReplica, connect: Connect) -> None:
    replica = await start_replica()
    (await connect(replica)).submit(request(tokens=1_000_000))
    await asyncio.sleep(10 * STEP)
    await asyncio.wait_for(replica.server.drain(0.1), 1.0)


def test_the_counting_engine_is_an_engine() -> None:
    assert CountingEngine().stats().running == 0
