"""A program: a Dask cluster with TLS that knows nothing of us, and whose number of workers changes.

It reads credentials from the first line of stdin, prints the scheduler's address, and obeys: `adapt MIN MAX`,
`scale N`, and `idle SECONDS`, after which the scheduler ends. Each is answered with a line. It ends with stdin.
"""

import asyncio
import sys

import dask
import msgspec
from distributed import LocalCluster

from xinfer_runtime.cluster.credentials import TlsCredentials


async def main() -> None:
    # To end a cluster whose scheduler has ended takes as long.
    dask.config.set({"distributed.comm.timeouts.connect": "10s"})
    credentials = msgspec.json.decode(sys.stdin.readline(), type=TlsCredentials)
    async with LocalCluster(
        asynchronous=True,
        n_workers=0,
        threads_per_worker=1,
        protocol="tls://",
        security=credentials.security(),
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            match line.split():
                case ["adapt", least, most]:
                    cluster.adapt(minimum=int(least), maximum=int(most), interval="300ms", wait_count=2)
                case ["scale", count]:
                    cluster.scale(int(count))
                    await cluster
                case ["idle", seconds]:
                    cluster.scheduler.idle_timeout = float(seconds)
            print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
