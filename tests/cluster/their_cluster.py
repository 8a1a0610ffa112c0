"""A program: a Dask cluster with TLS that knows nothing of us.

`their_cluster.py PORT` reads credentials from stdin, prints the scheduler's address, and ends with stdin.
"""

import asyncio
import sys

import msgspec
from distributed import LocalCluster

from xinfer_runtime.cluster.credentials import TlsCredentials


async def main() -> None:
    credentials = msgspec.json.decode(sys.stdin.readline(), type=TlsCredentials)
    async with LocalCluster(
        asynchronous=True,
        n_workers=1,
        threads_per_worker=1,
        protocol="tls://",
        security=credentials.security(),
        scheduler_port=int(sys.argv[1]),
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main())
