"""How soon a gateway knows that a replica is gone.

    python -m tests.chaos.detection

This process does what a Jupyter server does: it keeps the watch of the controller's table and a link to each replica.
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.chaos.site import MODEL, Site

from xinfer_runtime.cluster.authority import find_credentials
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import ReplicaLost
from xinfer_runtime.models import Replica
from xinfer_runtime.routing.link import Link


class Watch:
    """A gateway's session, and a link to one replica at a time."""

    def __init__(self, session: ClusterSession) -> None:
        self._session = session
        self._context = session.credentials.client_context()

    def replica_on(self, node: str) -> Replica:
        return next(replica for replica in self._session.models[MODEL].replicas if replica.node == node)

    async def link_lost(self, node: str, inject: Callable[[Replica], None]) -> float:
        """Seconds from `inject` until the link to the node's replica is lost."""
        replica, link = await self._connect(node)
        # Not in step with the link's pings.
        await asyncio.sleep(time.time() % 1 + 0.5)
        inject(replica)
        started = time.monotonic()
        await link.closed.wait()
        seconds = time.monotonic() - started
        await link.close()
        return seconds

    async def _connect(self, node: str) -> tuple[Replica, Link]:
        while True:
            replica = self.replica_on(node)
            try:
                return replica, await Link.connect(replica.address, replica.token, replica.id, self._context)
            except ReplicaLost:
                # The table is still that of a moment ago.
                await asyncio.sleep(0.1)

    async def table_changed(self, node: str, inject: Callable[[Replica], None]) -> float:
        """Seconds from `inject` until the pushed table shows that the replica is not ready."""
        replica = self.replica_on(node)
        inject(replica)
        started = time.monotonic()
        await self._session.wait_until(
            MODEL, lambda model: model is not None and replica.token not in {r.token for r in model.replicas}, 60
        )
        return time.monotonic() - started


def kill(replica: Replica) -> None:
    os.kill(replica.pid, signal.SIGKILL)


def stop(replica: Replica) -> None:
    os.kill(replica.pid, signal.SIGSTOP)


async def measure(folder: Path, repeats: int) -> None:
    """Prints each figure when it is there."""
    site = Site(folder)
    try:
        await site.start()
        await _losses(site, repeats)
    finally:
        assert not await site.close()


async def _losses(site: Site, repeats: int) -> None:
    credentials = find_credentials(site.home)
    assert credentials is not None
    session = ClusterSession(site.address, credentials)
    await session.connect()
    watch = Watch(session)
    await _repeat("killed, by its link", site, lambda: watch.link_lost("one", kill), repeats)
    await _repeat("killed, by the table", site, lambda: watch.table_changed("one", kill), repeats)
    await _repeat("stopped, by its link", site, lambda: _stopped(watch), repeats)
    machine = site.machine
    if machine is not None:
        cut_off = partial(watch.link_lost, "two", lambda _replica: machine.cut())
        await _repeat("cut off, by its link", site, cut_off, repeats, machine.mend)
    await session.close()


async def _stopped(watch: Watch) -> float:
    pid = watch.replica_on("one").pid
    try:
        return await watch.link_lost("one", stop)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def _repeat(
    name: str, site: Site, once: Callable[[], Awaitable[float]], times: int, mend: Callable[[], None] = lambda: None
) -> None:
    found = []
    for _ in range(times):
        found.append(await once())
        mend()
        await asyncio.sleep(0.5)
        await site.whole()
        await site.launch_again()
    print(f"{name}: median {statistics.median(found):.3f} s, most {max(found):.3f} s, of {times}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(measure(Path(scratch), arguments.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
