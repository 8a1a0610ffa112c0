"""A Dask cluster that somebody else runs, with TLS and without our plugins."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest
import pytest_asyncio
from distributed import Client

from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.cluster.agent import NodeAgent
from xinfer_runtime.cluster.child_process import child_environment
from xinfer_runtime.cluster.controller import Controller
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import ClusterUnavailable
from xinfer_runtime.models import LaunchRequest, ModelStatus

pytestmark = pytest.mark.asyncio(loop_scope="module")

UID = "xinfer-demo"

PROGRAM = Path(__file__).with_name("their_cluster.py")
WATCHED_REPLICA = Path(__file__).with_name("watched_replica.py")


class Cluster:
    """Scheduler and worker; the end of stdin closes them."""

    def __init__(self, folder: Path, credentials: TlsCredentials) -> None:
        self.credentials = credentials
        self.home = folder / "home"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, port: int = 0) -> str:
        environment = child_environment(os.environ, XINFER_HOME=str(self.home))
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        process = self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM), str(port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(self.credentials) + b"\n")
        return (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()

    async def stop(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            await asyncio.wait_for(self.process.wait(), 30)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("theirs"), TlsCredentials.create())
    yield cluster
    await cluster.stop()


async def launch(session: ClusterSession, replicas: int = 1) -> None:
    await session.launch(resolve(LaunchRequest(model_name=UID, replica=replicas)))
    await session.wait_until(UID, lambda model: model is not None and len(ready(model)) == replicas, 30)


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


def ready(model: ModelStatus) -> set[int]:
    """The processes of the replicas that are."""
    return {replica.pid for replica in model.replicas if replica.state == "ready"}


def notes_of_replicas(folder: Path) -> dict[int, set[int]]:
    """For each process, those that still ran when it started."""
    return {int(path.name): {int(pid) for pid in path.read_text().split()} for path in folder.iterdir()}


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


async def test_a_killed_workers_replicas_are_gone_before_its_nannys_next_worker_starts_others(
    cluster: Cluster, tmp_path: Path
) -> None:
    address = f"tls://127.0.0.1:{await port_of(cluster)}"
    security = cluster.credentials.security()
    async with Client(address, security=security, asynchronous=True, set_as_default=False) as client:
        await client.register_plugin(Controller())
        command = (sys.executable, str(WATCHED_REPLICA), str(tmp_path))
        await client.register_plugin(NodeAgent(replica_command=command))
    session = ClusterSession(address, cluster.credentials)
    await session.connect()
    await launch(session, replicas=2)
    before = ready(session.models[UID])
    stopped, _ = before
    # One that does not see the end of its stdin, as one whose engine is busy.
    os.kill(stopped, signal.SIGSTOP)
    psutil.Process(stopped).parent().kill()  # type: ignore[union-attr]
    await session.wait_until(UID, lambda model: model is not None and len(ready(model) - before) == 2, 90)
    notes = notes_of_replicas(tmp_path)
    later = notes.keys() - before
    assert len(later) >= 2
    assert not [pid for pid in later if notes[pid] & before], "an old replica still ran when a new one was started"
    await session.terminate(UID)
    await session.close()


async def test_strangers_do_not_get_in(cluster: Cluster) -> None:
    session = ClusterSession(f"tls://127.0.0.1:{await port_of(cluster)}", TlsCredentials.create())
    with pytest.raises(ClusterUnavailable, match="cannot be used within 2 s"):
        await session.connect(2)


async def test_a_scheduler_that_is_not_there_is_unavailable() -> None:
    session = ClusterSession("tls://127.0.0.1:1", TlsCredentials.create())
    with pytest.raises(ClusterUnavailable, match=r"127\.0\.0\.1:1 cannot be used within 1 s"):
        await session.connect(1)
