"""Clusters whose number of workers changes, by themselves or by an administrator: what serves is not taken away."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from distributed.core import rpc

from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.cluster.child_process import child_environment
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.models import LaunchRequest, ModelStatus

PROGRAM = Path(__file__).with_name("scaling_cluster.py")
UID = "xinfer-demo"


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.credentials = TlsCredentials.create()

    async def start(self) -> None:
        environment = child_environment(os.environ, XINFER_HOME=str(self.home))
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        self.address = await self.tell(msgspec.json.encode(self.credentials).decode())
        self.session = ClusterSession(self.address, self.credentials)
        await self.session.connect()

    async def tell(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        return (await asyncio.wait_for(self.process.stdout.readline(), 100)).decode().strip()

    async def workers(self) -> set[str]:
        remote = rpc(self.address, connection_args=self.credentials.security().get_connection_args("client"))
        try:
            return set((await remote.identity())["workers"])
        finally:
            await remote.close_rpc()

    async def launch(self, replica: int = 1) -> ModelStatus:
        await self.session.launch(resolve(LaunchRequest(model_name=UID, replica=replica)))
        status = await self.session.wait_until(
            UID, lambda model: model is not None and all(r.state == "ready" for r in model.replicas), 60
        )
        assert status is not None
        return status

    async def stop(self) -> None:
        await self.session.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), 60)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    await cluster.start()
    yield cluster
    await cluster.stop()


async def has_workers(cluster: Cluster, count: int) -> None:
    """Wait for the number of workers to become `count`."""
    for _ in range(300):
        if len(await cluster.workers()) == count:
            return
        await asyncio.sleep(0.2)
    raise TimeoutError(f"not {count} workers")


async def test_a_launch_has_an_adaptive_cluster_grow_and_it_shrinks_when_nothing_serves(cluster: Cluster) -> None:
    await cluster.tell("adapt 0 2")
    before = await cluster.launch()
    workers = await cluster.workers()
    assert len(workers) == 1

    # Many times what an idle worker is left.
    await asyncio.sleep(4)

    assert await cluster.workers() == workers
    assert cluster.session.models[UID].replicas == before.replicas
    await cluster.session.terminate(UID)
    await has_workers(cluster, 0)


async def test_an_administrator_who_scales_down_moves_the_replicas_first(cluster: Cluster) -> None:
    await cluster.tell("scale 2")
    await has_workers(cluster, 2)
    before = await cluster.launch(replica=2)
    assert len({replica.address for replica in before.replicas}) == 2
    seen: list[int] = []
    cluster.session.subscribe(
        lambda uid: seen.append(sum(replica.state == "ready" for replica in cluster.session.models[uid].replicas))
    )

    await cluster.tell("scale 1")

    await has_workers(cluster, 1)
    moved = await cluster.session.wait_until(UID, lambda m: m is not None and len(m.replicas) == 2, 60)
    assert moved is not None
    assert [replica.state for replica in moved.replicas] == ["ready", "ready"]
    assert min(seen) == 2, "two were ready all the time"


async def test_an_operator_gets_nodes_without_replicas_only_unless_it_names_others(cluster: Cluster) -> None:
    """What Dask's Kubernetes operator and other deployments ask the scheduler over its RPC."""
    await cluster.tell("scale 3")
    await has_workers(cluster, 3)
    before = await cluster.launch(replica=2)
    remote = rpc(cluster.address, connection_args=cluster.credentials.security().get_connection_args("client"))
    try:
        assert await remote.adaptive_target() == 2
        assert len(await remote.workers_to_close(n=3)) == 1
        retired = await remote.retire_workers(n=3, close_workers=True)
        await has_workers(cluster, 2)
        assert cluster.session.models[UID].replicas == before.replicas
        assert not await remote.retire_workers(n=2)
        names = {str(worker["name"]) for worker in (await remote.identity())["workers"].values()}
        seen: list[int] = []
        cluster.session.subscribe(
            lambda uid: seen.append(sum(replica.state == "ready" for replica in cluster.session.models[uid].replicas))
        )
        named = await remote.retire_workers(names=[min(names)], close_workers=True)
    finally:
        await remote.close_rpc()

    assert len(retired) == len(named) == 1
    await has_workers(cluster, 1)
    moved = await cluster.session.wait_until(UID, lambda m: m is not None and len(m.replicas) == 2, 60)
    assert moved is not None
    assert min(seen) == 2, "two were ready all the time"


async def test_a_cluster_that_ends_when_idle_does_not_end_while_a_model_serves(cluster: Cluster) -> None:
    await cluster.tell("scale 1")
    await has_workers(cluster, 1)
    await cluster.launch()
    await asyncio.sleep(1)
    await cluster.tell("idle 3")

    await asyncio.sleep(6)

    assert len(await cluster.workers()) == 1
    ended = asyncio.Event()
    cluster.session.subscribe_connection(lambda connected: None if connected else ended.set())
    await cluster.session.terminate(UID)
    await asyncio.wait_for(ended.wait(), 60)
