"""A cluster of separate programs: a supervisor and nodes that join it, as the command line starts them."""

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from distributed import Client

from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.cluster.authority import find_addresses, find_credentials
from xinfer_runtime.cluster.child_process import child_environment
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import NotFound
from xinfer_runtime.models import LaunchRequest, ModelStatus

pytestmark = pytest.mark.asyncio(loop_scope="module")

UID = "xinfer-demo"
_MAIN = "import sys; from jupyter_xinfer.cli import main; sys.exit(main())"


async def command(home: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = child_environment(os.environ, XINFER_HOME=str(home))
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    with (home.parent / f"{home.name}.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MAIN, *arguments),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()


async def output(home: Path, *arguments: str) -> str:
    process = await command(home, *arguments)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, arguments
    return out.decode().strip()


class Roles:
    """The supervisor's home is `folder/supervisor`; node n's is `folder/<name>`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "supervisor"
        self.nodes: dict[str, asyncio.subprocess.Process] = {}

    async def start_supervisor(self, port: int = 0) -> None:
        self.supervisor = await command(self.home, "supervisor", "--port", str(port), "--join-port", "0")
        line = await line_of(self.supervisor)
        found = re.search(r"at (tls://\S+);", line)
        assert found, line
        self.address = found.group(1)

    async def join(self, name: str) -> None:
        token = (await output(self.home, "join-token")).removeprefix("jupyter xinfer worker --join ")
        self.nodes[name] = await command(self.folder / name, "worker", "--join", token, "--name", name)

    async def session(self) -> ClusterSession:
        credentials = find_credentials(self.home)
        assert credentials is not None
        session = ClusterSession(self.address, credentials)
        await session.connect()
        return session

    async def stop(self) -> list[psutil.Process]:
        """Everything as SIGTERM ends it. Returns all the processes there were."""
        roots = [psutil.Process(p.pid) for p in (*self.nodes.values(), self.supervisor) if p.returncode is None]
        family = [process for root in roots for process in (root, *root.children(recursive=True))]
        for process in (*self.nodes.values(), self.supervisor):
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.wait(), 30)
        return family


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def roles(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Roles]:
    roles = Roles(tmp_path_factory.mktemp("roles"))
    await roles.start_supervisor()
    await roles.join("one")
    yield roles
    family = await roles.stop()
    await asyncio.sleep(0.5)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def ready_on(*nodes: str) -> object:
    def check(model: ModelStatus | None) -> bool:
        return model is not None and [(r.node, str(r.state)) for r in model.replicas] == [(n, "ready") for n in nodes]

    return check


async def ready(session: ClusterSession, *nodes: str, seconds: float = 40) -> ModelStatus:
    status = await session.wait_until(UID, ready_on(*nodes), seconds)  # type: ignore[arg-type]
    assert status is not None
    return status


async def test_a_node_that_joined_runs_models(roles: Roles) -> None:
    session = await roles.session()
    await session.launch(resolve(LaunchRequest(model_name=UID)))
    await ready(session, "one")
    assert (roles.folder / "one" / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    tokens = await output(roles.home, "join-token", "--list")
    assert re.fullmatch(r"[0-9a-f]{8}  used .*", tokens)
    await session.close()


async def test_a_node_without_a_good_token_stays_out(roles: Roles) -> None:
    stranger = await command(roles.folder / "stranger", "worker", "--supervisor", roles.address)
    assert await asyncio.wait_for(stranger.wait(), 30) == 1
    token = (await output(roles.home, "join-token")).removeprefix("jupyter xinfer worker --join ")
    token_id = (await output(roles.home, "join-token", "--list")).splitlines()[-1].split()[0]
    await output(roles.home, "join-token", "--revoke", token_id)
    late = await command(roles.folder / "late", "worker", "--join", token)
    assert await asyncio.wait_for(late.wait(), 30) == 1
    assert "is revoked" in (roles.folder / "late.log").read_text()
    assert not (roles.folder / "late" / "tls").exists()


async def test_a_port_that_is_taken_is_named_in_one_line(roles: Roles) -> None:
    port = roles.address.rpartition(":")[2]
    second = await command(roles.folder / "second", "supervisor", "--port", port, "--join-port", "0")
    assert await asyncio.wait_for(second.wait(), 30) == 1
    last = (roles.folder / "second.log").read_text().splitlines()[-1]
    assert last.startswith(f"jupyter xinfer: the supervisor cannot listen on 127.0.0.1:{port}")
    assert "in use" in last


async def test_a_drained_nodes_replica_moves_and_a_drain_is_undone(roles: Roles) -> None:
    session = await roles.session()
    await roles.join("two")
    nodes_known = time.monotonic() + 40
    while "not all" in await session.drain("one"):
        assert time.monotonic() < nodes_known
        await asyncio.sleep(0.5)
    await ready(session, "two")
    assert "is empty" in await session.drain("one")
    assert "is used again" in await session.drain("one", undo=True)
    with pytest.raises(NotFound, match=r"'nowhere'.*one .*two "):
        await session.drain("nowhere")
    await session.close()


async def test_retire_workers_moves_replicas_first(roles: Roles) -> None:
    session = await roles.session()
    before = await ready(session, "two")
    states: list[set[str]] = []
    session.subscribe(lambda uid: states.append({str(replica.state) for replica in session.models[uid].replicas}))
    async with Client(roles.address, security=session.credentials.security(), asynchronous=True) as client:
        await client.retire_workers(names=["two"])
    await ready(session, "one")
    assert all("ready" in each for each in states), "there was a ready replica all the time"
    assert session.models[UID].replicas[0].pid != before.replicas[0].pid
    assert await asyncio.wait_for(roles.nodes["two"].wait(), 20) == 0, "a node that was retired ends"
    await session.close()


async def test_a_node_whose_token_is_revoked_is_expelled_and_ends(roles: Roles) -> None:
    session = await roles.session()
    await roles.join("three")
    token_id = (await output(roles.home, "join-token", "--list")).splitlines()[-1].split()[0]
    async with Client(roles.address, security=session.credentials.security(), asynchronous=True) as client:
        await client.wait_for_workers(2, timeout=60)
        await output(roles.home, "join-token", "--revoke", token_id)
        assert await asyncio.wait_for(roles.nodes["three"].wait(), 60) == 1
        workers = (await client.scheduler.identity())["workers"]  # type: ignore[union-attr]
        assert [worker["name"] for worker in workers.values()] == ["one"]
    assert "was revoked" in (roles.folder / "three.log").read_text().splitlines()[-1]
    again = await command(roles.folder / "three", "worker")
    assert await asyncio.wait_for(again.wait(), 60) == 1, "its certificate opens nothing any more"
    await ready(session, "one")
    await session.close()


async def test_a_killed_dask_worker_does_not_disturb_the_replicas_of_its_node(roles: Roles) -> None:
    session = await roles.session()
    before = await ready(session, "one")
    states: list[str] = []
    session.subscribe(lambda uid: states.append(str(session.models[uid].state)))
    workers = [p for p in psutil.Process(roles.nodes["one"].pid).children() if "spawn_main" in " ".join(p.cmdline())]
    workers[0].kill()

    await session.wait_until(UID, lambda model: model is not None and found_running(model), 60)
    await ready(session, "one")

    assert set(states) == {"ready"}, "nobody had a reason to wait"
    assert session.models[UID].replicas[0].pid == before.replicas[0].pid
    assert session.models[UID].replicas[0].restarts == before.replicas[0].restarts
    await session.close()


def found_running(model: ModelStatus) -> bool:
    return any("found running" in event.content for event in model.events)


async def test_replicas_outlast_a_killed_supervisor_and_are_found_by_the_next(roles: Roles) -> None:
    session = await roles.session()
    before = await ready(session, "one")
    connections: list[bool] = []
    session.subscribe_connection(connections.append)
    roles.supervisor.kill()
    await roles.supervisor.wait()
    await roles.start_supervisor(int(roles.address.rpartition(":")[2]))
    await session.wait_until(UID, lambda _: connections == [False, True], 60)
    after = await ready(session, "one")

    assert after.replicas[0].pid == before.replicas[0].pid
    assert after.replicas[0].token == before.replicas[0].token, "gateways keep their links"
    assert found_running(after)
    addresses = find_addresses(roles.home)
    assert addresses is not None
    assert addresses.scheduler == roles.address
    await session.close()
