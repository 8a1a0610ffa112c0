"""A site as a lab has it: a supervisor, two nodes, two Jupyter servers, each a process of its own, one model twice."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.chaos.network import Machine, permitted
from tests.chaos.processes import Program, below, dask_workers, replica_processes
from tests.conftest import free_port

MODEL = "xinfer-demo"
SCRIPT = Path(sys.executable).with_name("jupyter-xinfer")
WAIT = 90.0


class Gateway:
    """A Jupyter server of the site. `up` is what the load believes: nobody asks a server known to be down."""

    def __init__(self, program: Program, url: str, token: str) -> None:
        self.program = program
        self.url = url
        self.client = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(90.0, connect=5.0)
        )
        self.up = False
        self.killed_at = 0.0


class Site:
    """Everything lies below `folder`. Node `two` is a network namespace where that is permitted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.no_namespaces = permitted()
        self.machine = None if self.no_namespaces else Machine(1)
        self.host = self.machine.here if self.machine is not None else "127.0.0.1"
        self._port = free_port()
        self.home = folder / "supervisor"
        self.supervisor = self._program(
            "supervisor",
            self.home,
            *("supervisor", "--host", self.host, "--port", str(self._port), "--join-port", str(free_port())),
        )
        self.nodes: dict[str, Program] = {}
        tls = self.home / "tls"
        self._to_supervisor = (
            f"--scheduler={self.address}",
            *(f"--XinferApp.tls_{part}_file={tls / part}.pem" for part in ("ca", "cert", "key")),
        )
        self.gateways = [self._gateway(name, *self._to_supervisor) for name in ("a", "b")]

    # ---- start and end

    async def start(self) -> None:
        if self.machine is not None:
            self.machine.create()
        self.supervisor.start()
        await until(lambda: (self.home / "tls" / "supervisor.json").exists(), "the supervisor is there")
        for gateway in self.gateways:
            await self.start_gateway(gateway)
        for name in ("one", "two"):
            prefix = self.machine.prefix if self.machine is not None and name == "two" else ()
            node = self.nodes[name] = self._program(name, self.home_of(name), "worker", "--name", name, prefix=prefix)
            node.start("--join", await asyncio.to_thread(self._join_token))
            await until(lambda name=name: (self.home_of(name) / "tls" / "cert.pem").exists(), f"{name} has joined")
        await self.launch()

    async def launch(self) -> None:
        launched = await self.gateways[0].client.post("v1/models", json={"model_name": MODEL, "replica": 2})
        assert launched.status_code == 200, launched.text
        await self.whole()

    async def launch_again(self) -> None:
        """Have replicas that never crashed: after a few times others are kept from starting for a while."""
        ended = await self.gateways[0].client.delete(f"v1/models/{MODEL}")
        assert ended.status_code == 200, ended.text
        await self.launch()

    async def start_alone(self) -> Gateway:
        """Start one Jupyter server with a cluster of its own instead of all that, and the model once."""
        self.gateways = [self._gateway("alone", f"--XinferApp.launch={MODEL}")]
        await self.start_gateway(self.gateways[0])
        return self.gateways[0]

    async def start_gateway(self, gateway: Gateway) -> None:
        gateway.program.start()

        async def answers() -> bool:
            try:
                info = (await gateway.client.get("xinfer/info", timeout=5)).json()
            except httpx.TransportError:
                return False
            return bool(info["cluster"]["state"] == "running")

        await until(answers, f"{gateway.program.name} has found the cluster")
        gateway.up = True

    async def close(self) -> list[str]:
        """End everything in order. Returns what was left behind, which is to be nothing."""
        for gateway in self.gateways:
            await gateway.client.aclose()
        for program in [*(gateway.program for gateway in self.gateways), *self.nodes.values(), self.supervisor]:
            await asyncio.to_thread(program.terminate)
        with suppress(TimeoutError):
            await until(lambda: not list(below(self.folder)), "nothing is left", 20)
        left = list(below(self.folder))
        described = [describe(process) for process in left]
        for process in left:
            process.kill()
        if self.machine is not None:
            self.machine.delete()
        return described

    # ---- what there is

    @property
    def address(self) -> str:
        """The scheduler's."""
        return f"tls://{self.host}:{self._port}"

    async def replicas(self) -> list[dict[str, Any]]:
        """As the model's page shows them; raises httpx errors where no server answers."""
        gateway = next(gateway for gateway in self.gateways if gateway.up)
        answer = await gateway.client.get(f"v1/models/{MODEL}", timeout=10)
        answer.raise_for_status()
        return list(answer.json()["replicas"])

    def home_of(self, node: str) -> Path:
        return self.folder / f"node-{node}"

    def worker_of(self, node: str) -> int:
        """The process of the node's Dask worker."""
        return dask_workers(self.nodes[node].pid)[0]

    def scratch(self) -> list[Path]:
        """What lies in the nodes' scratch folders, and in the folder for temporary files."""
        return [path for name in self.nodes for path in (self.home_of(name) / "scratch").rglob("*") if path.is_file()]

    async def whole(self) -> float:
        """Wait until the model has its two replicas, ready on different nodes, for both servers. Returns the seconds.

        Where both came to be on one node, a third one is added and one of the two removed, as an administrator would.
        """
        started = time.monotonic()
        await until(self._two_ready, "two replicas are ready")
        while len(nodes := {replica["node"] for replica in await self.replicas()}) == 1:
            if time.monotonic() > started + WAIT:
                raise TimeoutError(f"not within {WAIT:.0f} s: a replica on another node than {nodes}")
            await self.replace_one()
            await until(self._two_ready, "two replicas are ready")
        return time.monotonic() - started

    async def accounted(self) -> None:
        """Wait until no replica's process is left but those that the model's page shows."""

        async def no_other() -> bool:
            shown = {replica["pid"] for replica in await self.replicas()}
            return await asyncio.to_thread(lambda: set(replica_processes(self.folder))) == shown

        await until(no_other, "no other replica's process is left")

    async def replace_one(self) -> None:
        """Add a third replica, wherever it fits, and remove one of the two."""
        replicas = await self.replicas()
        client = next(gateway.client for gateway in self.gateways if gateway.up)
        added = await client.post(f"v1/models/{MODEL}/replicas", json={})
        assert added.status_code == 200, added.text
        await until(lambda: self._two_ready(3), "a third replica is ready")
        removed = await client.delete(f"v1/models/{MODEL}/replicas/{replicas[0]['replica_id']}")
        assert removed.status_code == 200, removed.text

    async def _two_ready(self, count: int = 2) -> bool:
        for gateway in self.gateways:
            try:
                answer = await gateway.client.get(f"v1/models/{MODEL}", timeout=10)
                info = await gateway.client.get("xinfer/info", timeout=10)
            except httpx.TransportError:
                return False
            if answer.status_code != 200 or info.json()["cluster"]["state"] != "running":
                return False
            replicas = answer.json()["replicas"]
            if len(replicas) != count or any(replica["state"] != "ready" for replica in replicas):
                return False
            if not all(psutil.pid_exists(replica["pid"]) for replica in replicas):
                return False
        return True

    # ---- programs

    def _program(self, name: str, home: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> Program:
        home.mkdir(parents=True, exist_ok=True)
        env = {"XINFER_HOME": str(home), "PATH": os.environ["PATH"], "HOME": str(self.folder)}
        env |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        return Program(name, [str(SCRIPT), *arguments], env, self.folder / f"{name}.log", prefix)

    def _gateway(self, name: str, *options: str) -> Gateway:
        folder, port, token = self.folder / f"jupyter-{name}", free_port(), secrets.token_hex(16)
        program = self._program(
            f"jupyter-{name}",
            folder / "home",
            *("local", "--host", "127.0.0.1", "--port", str(port), "--allow-root"),
            f"--ServerApp.root_dir={folder}",
            *options,
        )
        program.set_env(
            JUPYTER_TOKEN=token,
            JUPYTER_RUNTIME_DIR=str(folder / "runtime"),
            JUPYTER_CONFIG_DIR=str(folder / "config"),
            JUPYTER_DATA_DIR=str(folder / "data"),
        )
        return Gateway(program, f"http://127.0.0.1:{port}/", token)

    def _join_token(self) -> str:
        done = subprocess.run(
            [SCRIPT, "join-token"],
            env={"XINFER_HOME": str(self.home), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.split()[-1]


async def until(condition: Callable[[], Any], what: str, seconds: float = WAIT) -> None:
    """Poll `condition`, which may be a coroutine function, until it holds. Raises TimeoutError that says `what` not."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(0.1)


def describe(process: psutil.Process) -> str:
    try:
        return json.dumps({"pid": process.pid, "command": process.cmdline()[:6]})
    except psutil.NoSuchProcess:
        return "a process that has just ended"
