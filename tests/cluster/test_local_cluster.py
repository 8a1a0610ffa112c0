"""The real thing: a local cluster in its own process, a Dask worker, replicas with llama.cpp, links over TLS."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from bench.engine.random_model import SHAPES, write

import xinfer_runtime.catalog
from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.cluster.child_process import child_environment
from xinfer_runtime.cluster.core_shares import core_shares
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.local import LocalClusterProcess
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.control_group import usable_cores
from xinfer_runtime.errors import ClusterUnavailable, Conflict, DoesNotFit, ModelFileError, ModelNotFound
from xinfer_runtime.messages import ChatMessage, GenerateRequest, SamplingParams
from xinfer_runtime.models import LaunchRequest, ModelStatus, Replica, ReplicaState
from xinfer_runtime.routing.link import Link
from xinfer_runtime.routing.router import Router

pytestmark = pytest.mark.asyncio(loop_scope="module")

UID = "xinfer-demo"


class Gateway:
    """What a Jupyter server has: a cluster, a session and a router."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.credentials = TlsCredentials.create()
        self.cluster = LocalClusterProcess(home, self.credentials)

    async def open(self) -> None:
        address = await self.cluster.start()
        self.session = ClusterSession(address.scheduler, self.credentials)
        await self.session.connect()
        self.router = Router(self.session)

    async def close(self) -> None:
        await self.router.close()
        await self.session.close()
        await self.cluster.close()

    async def launch(self, **fields: object) -> ModelStatus:
        status = await self.session.launch(resolve(LaunchRequest(**fields)))  # type: ignore[arg-type]
        return await self.settled(status.spec.uid)

    async def settled(self, uid: str = UID) -> ModelStatus:
        status = await self.session.wait_until(
            uid, lambda model: model is not None and model.state in ("ready", "failed"), 30
        )
        assert status is not None
        return status

    async def story(self, tokens: int = 60, pause: Callable[[int], None] = lambda _count: None) -> list[int]:
        request = GenerateRequest(
            id="story",
            messages=(ChatMessage(role="user", content="Tell me a long story."),),
            sampling=SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True),
        )
        got: list[int] = []
        async with aclosing(self.router.generate(UID, request)) as deltas:
            async for delta in deltas:
                got += delta.token_ids
                pause(len(got))
        return got

    def replica(self, uid: str = UID) -> Replica:
        return self.session.models[uid].replicas[0]

    def processes(self) -> list[psutil.Process]:
        root = psutil.Process(self.cluster.pid)
        return [root, *root.children(recursive=True)]

    def worker(self) -> psutil.Process:
        """The parent of the replica."""
        return psutil.Process(self.replica().pid).parent() or psutil.Process()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("home"))
    await gateway.open()
    await gateway.launch(model_name=UID)
    yield gateway
    family = gateway.processes()
    await gateway.close()
    gone(family, 5)


def cores_said(gateway: Gateway, replica: Replica) -> int:
    """What the replica was told last; 0 for nothing."""
    text = next(gateway.home.glob(f"logs/*{replica.id}.log")).read_text()
    said = re.findall(r"computes on (\d+) cores", text)
    return int(said[-1]) if said else 0


def gone(processes: list[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if process.is_running() and runs(process)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    """A zombie is gone: only its last parent, the system's, has yet to take note."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_launched_model_answers(gateway: Gateway) -> None:
    status = gateway.session.models[UID]
    assert status.state == "ready"
    assert status.spec.quantization == "q8_0"
    assert status.spec.created > 1_700_000_000
    assert gateway.replica().info is not None
    assert len(await gateway.story()) == 60
    assert list(gateway.router.stats(UID)) == [f"{UID}-0"]


async def test_everything_listens_on_the_loopback_alone(gateway: Gateway) -> None:
    addresses = {
        connection.laddr.ip
        for process in gateway.processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


async def test_no_secret_is_in_arguments_environment_logs_or_the_desired_table(gateway: Gateway) -> None:
    secrets = [gateway.replica().token, *gateway.credentials.key.split("\n")[1:2]]
    texts = [" ".join(process.cmdline()) + str(process.environ()) for process in gateway.processes()]
    texts += [path.read_text() for path in gateway.home.rglob("*") if path.is_file()]
    assert not [text for text in texts for secret in secrets if secret in text]


async def test_replicas_have_all_threads_and_no_dask(gateway: Gateway) -> None:
    replica = psutil.Process(gateway.replica().pid)
    assert "OMP_NUM_THREADS" not in replica.environ()
    assert not any("distributed" in mapping.path for mapping in replica.memory_maps())
    assert os.getpgid(replica.pid) == replica.pid


async def test_a_uid_in_use_is_a_conflict(gateway: Gateway) -> None:
    with pytest.raises(Conflict, match=UID):
        await gateway.launch(model_name=UID)


async def test_a_missing_or_broken_file_is_named_and_everything_else_serves(gateway: Gateway, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 1000)
    cut_off = tmp_path / "cut-off.gguf"
    whole = Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf"
    cut_off.write_bytes(whole.read_bytes()[:1_000_000])
    for path in (tmp_path / "nowhere.gguf", broken, cut_off):
        with pytest.raises(ModelFileError, match=path.name):
            await gateway.launch(model_path=str(path))
    assert list(gateway.session.models) == [UID]
    assert len(await gateway.story(10)) == 10


async def test_what_does_not_fit_is_refused_with_numbers(gateway: Gateway) -> None:
    with pytest.raises(DoesNotFit, match=r"needs .* free of"):
        await gateway.launch(model_name=UID, model_uid="many", replica=1000)


async def test_two_replicas_are_launched_and_terminated(gateway: Gateway) -> None:
    await gateway.launch(model_name=UID, model_uid="two", replica=2)
    await gateway.session.wait_until("two", lambda model: all_ready(model, 2), 30)
    pids = [replica.pid for replica in gateway.session.models["two"].replicas]
    assert len(set(pids)) == 2
    await gateway.session.terminate("two")
    assert "two" not in gateway.session.models
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(ModelNotFound):
        await gateway.session.terminate("two")


async def test_replicas_are_added_and_removed_and_a_stream_on_a_removed_one_goes_on(gateway: Gateway) -> None:
    """One stream: two that end up at one replica share its passes, which may round differently."""
    await gateway.session.scale(UID, 2)
    await gateway.session.wait_until(UID, lambda model: all_ready(model, 2), 30)
    undisturbed = await gateway.story(200)
    removals: list[asyncio.Future[object]] = []
    removed = ""

    def remove(count: int) -> None:
        nonlocal removed
        if count >= 20 and not removals:
            removed = max(gateway.router._links.live(UID), key=lambda link: link.outstanding).name
            removals.append(asyncio.ensure_future(gateway.session.remove_replica(UID, removed)))

    assert await gateway.story(200, remove) == undisturbed
    await asyncio.gather(*removals)
    await gateway.session.wait_until(UID, lambda model: all_ready(model, 1), 30)
    assert removed not in [replica.id for replica in gateway.session.models[UID].replicas]
    await gateway.session.scale(UID, 2)
    await gateway.session.wait_until(UID, lambda model: all_ready(model, 2), 30)
    await gateway.session.scale(UID, 1)
    await gateway.session.wait_until(UID, lambda model: all_ready(model, 1), 30)


async def test_a_launch_is_cancelled_while_it_loads(gateway: Gateway) -> None:
    await gateway.session.launch(resolve(LaunchRequest(model_name=UID, model_uid="regretted")))
    await gateway.session.cancel_launch("regretted")
    await gateway.session.wait_until("regretted", lambda model: model is None, 10)
    with pytest.raises(ModelNotFound):
        await gateway.session.cancel_launch("regretted")


def all_ready(model: ModelStatus | None, count: int) -> bool:
    return model is not None and [replica.state for replica in model.replicas] == [ReplicaState.READY] * count


async def test_a_killed_replica_comes_back_and_its_streams_go_on(gateway: Gateway) -> None:
    undisturbed = await gateway.story(200)
    killed = gateway.replica()

    def kill(count: int) -> None:
        if count >= 20 and psutil.pid_exists(killed.pid):
            os.kill(killed.pid, signal.SIGKILL)

    assert await gateway.story(200, kill) == undisturbed
    await gateway.settled()
    assert gateway.replica().pid != killed.pid
    assert gateway.replica().token != killed.token
    assert gateway.replica().restarts == killed.restarts + 1
    assert any("died (signal 9" in event.content for event in gateway.session.models[UID].events)


async def test_a_stream_goes_on_whose_next_replica_dies_before_it_has_taken_over(gateway: Gateway) -> None:
    await gateway.session.scale(UID, 2)
    await gateway.session.wait_until(UID, lambda model: all_ready(model, 2), 30)
    undisturbed = await gateway.story(400)
    moves: list[asyncio.Task[None]] = []

    async def lose(leaving: Link, following: Link, pid: int) -> None:
        removal = asyncio.create_task(gateway.session.remove_replica(UID, leaving.name))
        async with asyncio.timeout(30):
            while not following.outstanding:  # noqa: ASYNC110  (links tell nobody what they are given)
                await asyncio.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        await removal

    def begin(count: int) -> None:
        if count >= 20 and not moves:
            following, leaving = sorted(gateway.router._links.live(UID), key=lambda link: link.outstanding)
            assert (following.outstanding, leaving.outstanding) == (0, 1)
            pids = {replica.id: replica.pid for replica in gateway.session.models[UID].replicas}
            # It will be given the stream, but not come to fetch its state.
            os.kill(pids[following.name], signal.SIGSTOP)
            moves.append(asyncio.create_task(lose(leaving, following, pids[following.name])))

    assert await gateway.story(400, begin) == undisturbed
    await asyncio.gather(*moves)
    await gateway.session.wait_until(UID, lambda model: all_ready(model, 1), 30)
    assert gateway.replica().restarts > 0


async def test_a_killed_worker_comes_back_with_its_replicas_and_leaves_no_orphan(gateway: Gateway) -> None:
    orphan = psutil.Process(gateway.replica().pid)
    undisturbed = await gateway.story(200)
    worker = gateway.worker()

    def kill(count: int) -> None:
        if count >= 20 and worker.is_running():
            worker.kill()

    assert await gateway.story(200, kill) == undisturbed
    gone([worker, orphan], 1)
    assert gateway.replica().pid != orphan.pid


async def test_models_come_back_after_a_restart(tmp_path: Path) -> None:
    first = Gateway(tmp_path)
    await first.open()
    await first.launch(model_name=UID)
    family = first.processes()
    await first.close()
    gone(family, 1)
    assert [model["uid"] for model in json.loads((tmp_path / "cluster/desired.json").read_text())["models"]] == [UID]
    second = Gateway(tmp_path)
    await second.open()
    assert (await second.settled()).state == "ready"
    await second.session.terminate(UID)
    await second.close()
    assert json.loads((tmp_path / "cluster/desired.json").read_text())["models"] == []


async def test_a_second_cluster_with_the_same_home_starts_no_model_twice(gateway: Gateway) -> None:
    second = Gateway(gateway.home)
    await second.open()
    assert dict(second.session.models) == {}
    await second.close()
    assert "xinfer-demo" in (gateway.home / "cluster/desired.json").read_text()


async def test_a_table_that_cannot_be_read_does_not_keep_the_cluster_from_starting(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster/desired.json").write_text("{broken")
    gateway = Gateway(tmp_path)
    await gateway.open()
    assert dict(gateway.session.models) == {}
    await gateway.close()
    assert (tmp_path / "cluster/desired.broken.json").read_text() == "{broken"
    assert "cannot be read" in (tmp_path / "logs/cluster.log").read_text()


async def test_a_home_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("not a folder")
    with pytest.raises(ClusterUnavailable, match=str(home)):
        await Gateway(home).open()


OWNER = """
import asyncio, sys, time
from pathlib import Path
from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.models import LaunchRequest
from tests.cluster.test_local_cluster import Gateway

async def main():
    gateway = Gateway(Path(sys.argv[1]))
    await gateway.open()
    await gateway.launch(model_name="xinfer-demo")
    print(gateway.cluster.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_killed_owner_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = child_environment(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER, str(tmp_path)),
        env=environment,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    line = await owner.stdout.readline()
    root = psutil.Process(int(line))
    family = [root, *root.children(recursive=True)]
    assert len(family) >= 3
    owner.kill()
    started = time.monotonic()
    await asyncio.to_thread(gone, family, 10)
    assert time.monotonic() - started < 10
    await owner.wait()


async def test_a_killed_cluster_is_noticed(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    await gateway.open()
    await gateway.launch(model_name=UID)
    family = gateway.processes()
    psutil.Process(gateway.cluster.pid).kill()
    await asyncio.wait_for(gateway.cluster.exited.wait(), 2)
    await asyncio.to_thread(gone, family, 5)
    assert not gateway.session.connected
    await gateway.close()


async def test_replicas_share_the_cores_of_their_node(gateway: Gateway, tmp_path: Path) -> None:
    path = tmp_path / "47mb.gguf"
    write(path, SHAPES["15m"])
    try:
        first = await gateway.launch(model_path=str(path), model_uid="first", max_sequences=2, context_length=256)
        second = await gateway.launch(model_path=str(path), model_uid="second", max_sequences=2, context_length=256)
        infos = [status.replicas[0].info for status in (gateway.session.models[UID], first, second)]
        wants = {number: info.threads for number, info in enumerate(infos) if info is not None}
        assert wants[0] == 1  # Too small for more.
        expected = core_shares(usable_cores(), wants)
        said: list[int] = []
        for _ in range(300):
            said = [cores_said(gateway, each.replicas[0]) for each in (first, second)]
            if said == [expected[1], expected[2]]:
                break
            await asyncio.sleep(0.1)
        assert said == [expected[1], expected[2]]
    finally:
        for uid in ("first", "second"):
            await gateway.session.terminate(uid)
