"""How soon models answer again after the programs of a site were killed.

    python -m tests.chaos.returns

Seconds count from the moment when the new scheduler listens. What its program needs before, which is Python's start and
imports, is said beside them.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
from tests.chaos.processes import Program
from tests.chaos.site import MODEL, Gateway, Site, until

_DOWN_SECONDS = 2.0
_CALM_SECONDS = 5.0
_QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "What is 2 + 3?"}], "temperature": 0}

Returned = tuple[float, float]
"""Seconds from the programs' start until the scheduler listens, and from there until it is of use."""


async def answers(gateway: Gateway) -> bool:
    return (await gateway.client.post("v1/chat/completions", json=_QUESTION)).status_code == 200


async def takes_changes(gateway: Gateway) -> bool:
    change = {"node": "one", "undo": True}
    return (await gateway.client.post("xinfer/drain", json=change)).status_code == 200


async def site_back(site: Site, nodes: list[Program], useful: Callable[[Gateway], Awaitable[bool]]) -> Returned:
    """Kill the supervisor and the nodes, and start them again after 2 s."""
    programs = [site.supervisor, *nodes]
    for program in programs:
        program.kill()
    await asyncio.sleep(_DOWN_SECONDS)
    started = time.monotonic()
    for program in programs:
        program.start()
    return await _returned(started, lambda: listens(site.supervisor.pid), lambda: useful(site.gateways[0]))


async def alone_back(folder: Path) -> Returned:
    """Kill the process of a new Jupyter server's local cluster, which the server starts again."""
    site = Site(folder)
    try:
        gateway = await site.start_alone()
        await until(lambda: answers(gateway), "the model answers")
        (old,) = local_clusters(gateway)
        started = time.monotonic()
        old.kill()
        return await _returned(
            started,
            lambda: any(listens(new.pid) for new in local_clusters(gateway) if new != old),
            lambda: answers(gateway),
        )
    finally:
        assert not await site.close()


async def _returned(started: float, listening: Callable[[], bool], useful: Callable[[], Awaitable[bool]]) -> Returned:
    await until(listening, "the scheduler listens")
    returned = time.monotonic()
    await until(useful, "it works again")
    return returned - started, time.monotonic() - returned


def listens(pid: int) -> bool:
    try:
        return any(each.status == psutil.CONN_LISTEN for each in psutil.Process(pid).net_connections("tcp"))
    except psutil.NoSuchProcess:
        return False


def local_clusters(gateway: Gateway) -> list[psutil.Process]:
    return [child for child in psutil.Process(gateway.program.pid).children() if _is_local_cluster(child)]


def _is_local_cluster(process: psutil.Process) -> bool:
    try:
        return any(part.endswith("cluster.local_main") for part in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


async def repeat(name: str, once: Callable[[], Awaitable[Returned]], times: int) -> None:
    found = []
    for _ in range(times):
        found.append(await once())
        await asyncio.sleep(_CALM_SECONDS)
    before, after = zip(*found, strict=True)
    print(
        f"{name}: median {statistics.median(after):.1f} s, most {max(after):.1f} s, of {times}; "
        f"the scheduler listens after {statistics.median(before):.1f} s, most {max(before):.1f} s",
        flush=True,
    )


async def measure(folder: Path, repeats: int) -> None:
    """Prints each figure when it is there."""
    site = Site(folder / "site")
    try:
        await site.start()
        nodes = list(site.nodes.values())
        await repeat("supervisor, until it takes changes", lambda: site_back(site, [], takes_changes), repeats)
        await repeat("supervisor and nodes, until an answer", lambda: site_back(site, nodes, answers), repeats)
    finally:
        assert not await site.close()
    numbers = itertools.count()
    await repeat("local cluster, until an answer", lambda: alone_back(folder / f"alone-{next(numbers)}"), repeats)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(measure(Path(scratch), arguments.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
