"""A program: Dask's SSHCluster as docs/cluster.md has it, on this machine by way of its sshd.

`ssh_cluster.py PORT KEY FOLDER`: the port of the sshd, the private key that it lets in, and a folder with `ca.pem`,
`cert.pem` and `key.pem`. It prints the scheduler's address, and ends with stdin.
"""

import asyncio
import sys

import dask
from distributed import SSHCluster


async def main(port: str, key: str, folder: str) -> None:
    dask.config.set({"distributed.comm.require-encryption": True, "distributed.comm.tls.ca-file": f"{folder}/ca.pem"})
    for role in ("scheduler", "worker", "client"):
        for part in ("cert", "key"):
            dask.config.set({f"distributed.comm.tls.{role}.{part}": f"{folder}/{part}.pem"})
    async with SSHCluster(
        ["127.0.0.1", "127.0.0.1"],
        connect_options={"port": int(port), "client_keys": [key], "known_hosts": None},
        scheduler_options={"protocol": "tls://", "port": 0, "dashboard_address": "127.0.0.1:0"},
        worker_options={"memory_limit": 0, "nthreads": 1, "env": {"XINFER_HOME": folder}},
        asynchronous=True,
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
