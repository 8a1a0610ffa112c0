"""One replica beside many on the same cores: `python bench/scale/replicas.py`.

A Dask cluster of `--workers` processes on this machine runs `xinfer-demo`, first with one replica, then with
`--replicas`, under `--streams` greedy streams at once. It prints tokens per second, the time to the first token, and
what a token costs in processor time here, where router and links are, and in the replicas. `--repeats` are interleaved;
the table has medians. The scheduler runs in this process too: mostly it has nothing to do.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

import dask
import psutil
from distributed import LocalCluster

from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.dask_options import DASK_CONFIG
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.messages import ChatMessage, GenerateRequest, SamplingParams
from xinfer_runtime.models import LaunchRequest, ModelStatus
from xinfer_runtime.routing.router import Router

UID = "xinfer-demo"


@dataclass(frozen=True)
class Run:
    """Of one load: rates per second, times in seconds, cost in seconds of processor time a token."""

    rate: float
    first: float
    gateway: float
    replicas: float


async def stream(router: Router, number: int, tokens: int) -> tuple[float, int]:
    """(seconds to the first token, tokens)."""
    request = GenerateRequest(
        id=f"stream-{number}",
        messages=(ChatMessage(role="user", content=f"Tell me a long story about the number {number}."),),
        sampling=SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True),
    )
    start, first, count = time.perf_counter(), 0.0, 0
    async with aclosing(router.generate(UID, request)) as deltas:
        async for delta in deltas:
            if delta.token_ids:
                first = first or time.perf_counter() - start
                count += len(delta.token_ids)
    return first, count


def cpu_of(pids: list[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


async def load(router: Router, pids: list[int], streams: int, tokens: int) -> Run:
    await asyncio.gather(*(stream(router, number, 8) for number in range(16)))
    own, theirs, start = time.process_time(), cpu_of(pids), time.perf_counter()
    answers = await asyncio.gather(*(stream(router, number, tokens) for number in range(streams)))
    seconds = time.perf_counter() - start
    count = sum(each for _, each in answers)
    return Run(
        rate=count / seconds,
        first=statistics.median(first for first, _ in answers),
        gateway=(time.process_time() - own) / count,
        replicas=(cpu_of(pids) - theirs) / count,
    )


def all_ready(count: int) -> Callable[[ModelStatus | None], bool]:
    def settled(status: ModelStatus | None) -> bool:
        return status is not None and [replica.state for replica in status.replicas] == ["ready"] * count

    return settled


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["XINFER_HOME"] = tempfile.mkdtemp()
    credentials = TlsCredentials.create()
    runs: dict[int, list[Run]] = {1: [], arguments.replicas: []}
    with dask.config.set(DASK_CONFIG):
        async with LocalCluster(
            asynchronous=True,
            n_workers=arguments.workers,
            threads_per_worker=1,
            protocol="tls://",
            security=credentials.security(),
            dashboard_address=None,
            memory_limit=0,
        ) as cluster:
            session = ClusterSession(cluster.scheduler_address, credentials)
            await session.connect()
            router = Router(session)
            await session.launch(resolve(LaunchRequest(model_name=UID, n_gpu=0)))
            for _ in range(arguments.repeats):
                for count in runs:
                    await session.scale(UID, count)
                    status = await session.wait_until(UID, all_ready(count), 300)
                    assert status is not None
                    pids = [replica.pid for replica in status.replicas]
                    runs[count].append(await load(router, pids, arguments.streams, arguments.tokens))
            await session.terminate(UID)
            await router.close()
            await session.close()
    sizes = f"{arguments.streams} streams of {arguments.tokens} tokens"
    print(f"{arguments.workers} workers, {sizes}, {os.cpu_count()} cores")
    print("| replicas | tokens/s | first token p50, s | gateway, us/token | replicas, us/token |")
    print("|---|---|---|---|---|")
    for count, found in runs.items():
        cells = (
            f"{statistics.median(run.rate for run in found):.0f}",
            f"{statistics.median(run.first for run in found):.2f}",
            f"{1e6 * statistics.median(run.gateway for run in found):.1f}",
            f"{1e6 * statistics.median(run.replicas for run in found):.0f}",
        )
        print(f"| {count} | {' | '.join(cells)} |")


if __name__ == "__main__":
    asyncio.run(main())
