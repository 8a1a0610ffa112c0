"""What goes wrong at a site, one at a time: each fault is done to it, lasts a while, and is mended."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.site import Site, until

_MEMORY = Path("/sys/fs/cgroup/memory")

RESTART_AFTER = 2.0
"""Seconds after which a service manager starts a program again that was killed."""


@dataclass(frozen=True)
class Fault:
    """`inject` returns what it did, for the report; the site mends itself afterwards, or `inject` has mended it."""

    name: str
    inject: Callable[[Site, random.Random], Awaitable[str]]
    needs: Callable[[Site], str] = lambda _site: ""
    """Why it cannot be done here; empty where it can."""


async def kill_replica(site: Site, rng: random.Random) -> str:
    replica = rng.choice(await site.replicas())
    await _kill_replica(site, replica)
    return f"kill -9 of replica {replica['replica_id']} on {replica['node']}"


async def stop_replica(site: Site, rng: random.Random) -> str:
    """SIGSTOP for long enough to be noticed and for short enough to be forgiven, or for longer than is forgiven."""
    replica = rng.choice(await site.replicas())
    seconds = rng.choice((6.0, 16.0))
    os.kill(replica["pid"], signal.SIGSTOP)
    await asyncio.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(replica["pid"], signal.SIGCONT)
    return f"SIGSTOP of replica {replica['replica_id']} for {seconds:.0f} s"


async def kill_worker(site: Site, rng: random.Random) -> str:
    node = rng.choice(sorted(site.nodes))
    os.kill(site.worker_of(node), signal.SIGKILL)
    return f"kill -9 of the Dask worker of node {node}"


async def kill_node(site: Site, rng: random.Random) -> str:
    node = rng.choice(sorted(site.nodes))
    site.nodes[node].kill()
    await asyncio.sleep(RESTART_AFTER)
    site.nodes[node].start()
    return f"kill -9 of the node process {node}, with its nanny"


async def kill_supervisor(site: Site, rng: random.Random) -> str:
    seconds = rng.choice((RESTART_AFTER, 8.0))
    site.supervisor.kill()
    await asyncio.sleep(seconds)
    site.supervisor.start()
    return f"kill -9 of the supervisor, away for {seconds:.0f} s"


async def kill_supervisor_twice(site: Site, rng: random.Random) -> str:
    """The second time while the nodes join again, at whatever stage."""
    site.supervisor.kill()
    site.supervisor.start()
    seconds = rng.uniform(1.0, 5.0)
    await asyncio.sleep(seconds)
    site.supervisor.kill()
    await asyncio.sleep(RESTART_AFTER)
    site.supervisor.start()
    return f"kill -9 of the supervisor, and {seconds:.1f} s after its return again"


async def kill_gateway(site: Site, rng: random.Random) -> str:
    gateway = rng.choice(site.gateways)
    gateway.up, gateway.killed_at = False, time.monotonic()
    gateway.program.kill()
    await asyncio.sleep(RESTART_AFTER)
    await site.start_gateway(gateway)
    return f"kill -9 of the Jupyter server {gateway.program.name}"


async def cut_node_off(site: Site, rng: random.Random) -> str:
    seconds = rng.choice((8.0, 45.0))
    assert site.machine is not None
    site.machine.cut()
    try:
        await asyncio.sleep(seconds)
    finally:
        site.machine.mend()
    return f"node two cut off for {seconds:.0f} s"


async def fill_disk(site: Site, rng: random.Random) -> str:
    """The disk of a node is full while its replica dies and is started again."""
    replica = rng.choice(await site.replicas())
    node = replica["node"]
    logs = site.home_of(node) / "logs"
    logs.mkdir(exist_ok=True)
    with _full(logs):
        await _kill_replica(site, replica)
        await site.whole()
    return f"disk full under the logs of node {node}, and kill -9 of its replica"


async def fill_supervisors_disk(site: Site, _rng: random.Random) -> str:
    """What is wanted changes, and cannot be written before there is room again."""
    table = site.home / "cluster" / "desired.json"
    before = table.stat().st_mtime_ns
    with _full(table.parent):
        await site.replace_one()
    await until(lambda: table.stat().st_mtime_ns > before, "the table is written")
    return "disk full under the supervisor's table, and a replica added and another one removed"


@contextmanager
def _full(folder: Path) -> Iterator[None]:
    """Meanwhile `folder` is another disk, which is full."""
    _run("mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder))
    try:
        with suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        yield
    finally:
        _run("umount", "-l", str(folder))


async def exhaust_memory(site: Site, rng: random.Random) -> str:
    """The memory of a replica's control group is used up by somebody else, and the kernel ends the replica for it."""
    replica = rng.choice(await site.replicas())
    group = _MEMORY / f"xinfer-chaos-{os.getpid()}"
    eater = f"echo $$ > {group}/cgroup.procs && exec tail /dev/zero"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(32 << 20))
        # What it has counts where it was allocated; what it allocates from now on counts here.
        (group / "cgroup.procs").write_text(str(replica["pid"]))
        await asyncio.to_thread(subprocess.run, ["/bin/sh", "-c", eater], check=False, timeout=60)
        await _noticed(site, replica)
    finally:
        await asyncio.to_thread(_leave, group)
    return f"memory exhausted around replica {replica['replica_id']}"


def _leave(group: Path) -> None:
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (_MEMORY / "cgroup.procs").write_text(pid)
    group.rmdir()


async def _kill_replica(site: Site, replica: dict[str, Any]) -> None:
    os.kill(replica["pid"], signal.SIGKILL)
    await _noticed(site, replica)


async def _noticed(site: Site, replica: dict[str, Any]) -> None:
    """Return when the table shows that the replica's process is gone."""

    async def noticed() -> bool:
        return replica["pid"] not in {now["pid"] for now in await site.replicas()}

    await until(noticed, "a dead replica is noticed")


def _needs_cables(site: Site) -> str:
    return site.no_namespaces


def _needs_root(_site: Site) -> str:
    return "" if os.geteuid() == 0 and shutil.which("mount") else "mounts are for root"


def _needs_cgroup(_site: Site) -> str:
    return "" if os.access(_MEMORY, os.W_OK) else "memory control groups (v1) are not writable"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


FAULTS = (
    Fault("replica killed", kill_replica),
    Fault("replica stopped", stop_replica),
    Fault("worker killed", kill_worker),
    Fault("node killed", kill_node),
    Fault("supervisor killed", kill_supervisor),
    Fault("supervisor killed twice", kill_supervisor_twice),
    Fault("Jupyter server killed", kill_gateway),
    Fault("node cut off", cut_node_off, _needs_cables),
    Fault("disk full", fill_disk, _needs_root),
    Fault("supervisor's disk full", fill_supervisors_disk, _needs_root),
    Fault("memory exhausted", exhaust_memory, _needs_cgroup),
)
