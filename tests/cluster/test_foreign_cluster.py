"""A Dask cluster that somebody else runs, with TLS and without our plugins."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.cluster.child_process import child_environment
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import ClusterUnavailable
from xinfer_runtime.messages import LaunchRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

UID = "xinfer-demo"

PROGRAM = Path(__file__).with_name("their_cluster.py")


class Cluster:
    """Scheduler and worker; the end of stdin closes them."""

    def __init__(self, folder: Path, credentials: TlsCredentials) -> None:
        self.credentials = credentials
        self.home = folder / "home"

    async def start(self, port: int = 0) -> str:
        environment = child_environment(os.environ, XINFER_HOME=str(self.home))
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM), str(port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(msgspec.json.encode(self.credentials) + b"\n")
        return (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode().strip()

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), 30)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("theirs"), TlsCredentials.create())
    yield cluster
    await cluster.stop()


async def launch(session: ClusterSession) -> None:
    await session.launch(resolve(LaunchRequest(model_name=UID)))
    await session.wait_until(UID, lambda model: model is not None and model.state == "ready", 30)


async def test_the_first_gateway_installs_the_plugins_and_the_second_sees_its_models(cluster: Cluster) -> None:
    address = await cluster.start()
    first = ClusterSession(address, cluster.credentials)
    second = ClusterSession(address, cluster.credentials)
    await first.connect()
    await launch(first)
    await second.connect()
    replica = second.models[UID].replicas[0]
    assert replica.state == "ready"
    await second.terminate(UID)
    await first.wait_until(UID, lambda model: model is None, 5)
    await first.close()
    await second.close()


async def test_a_session_finds_its_restarted_scheduler_and_brings_plugins_and_models_again(cluster: Cluster) -> None:
    address = f"tls://127.0.0.1:{await port_of(cluster)}"
    session = ClusterSession(address, cluster.credentials)
    await session.connect()
    seen: list[bool] = []
    session.subscribe_connection(seen.append)
    await launch(session)
    await cluster.stop()
    await connection(session, False)
    assert UID in session.models, "what was known stays known while the cluster is away"
    with pytest.raises(ClusterUnavailable):
        await session.terminate(UID)
    await cluster.start(int(address.rpartition(":")[2]))
    await connection(session, True)
    await session.wait_until(UID, lambda model: model is not None and model.state == "ready", 60)
    second = ClusterSession(address, cluster.credentials)
    await second.connect()
    assert second.models[UID].spec == session.models[UID].spec
    await session.terminate(UID)
    await second.wait_until(UID, lambda model: model is None, 30)
    await cluster.stop()
    await connection(session, False)
    await cluster.start(int(address.rpartition(":")[2]))
    await connection(session, True)
    assert not session.models, "what was ended stays so"
    assert seen == [False, True, False, True]
    await second.close()
    await session.close()


async def port_of(cluster: Cluster) -> str:
    await cluster.stop()
    return (await cluster.start()).rpartition(":")[2]


async def connection(session: ClusterSession, wanted: bool) -> None:
    changed = asyncio.Event()
    unsubscribe = session.subscribe_connection(lambda _connected: changed.set())
    async with asyncio.timeout(30):
        while session.connected is not wanted:
            await changed.wait()
            changed.clear()
    unsubscribe()


async def test_strangers_do_not_get_in(cluster: Cluster) -> None:
    session = ClusterSession(f"tls://127.0.0.1:{await port_of(cluster)}", TlsCredentials.create())
    with pytest.raises(ClusterUnavailable, match="cannot be used within 2 s"):
        await session.connect(2)


async def test_a_scheduler_that_is_not_there_is_unavailable() -> None:
    session = ClusterSession("tls://127.0.0.1:1", TlsCredentials.create())
    with pytest.raises(ClusterUnavailable, match=r"127\.0\.0\.1:1 cannot be used within 1 s"):
        await session.connect(1)
