"""Replicas of one model side by side on one node: `python bench/engine/shared_cores.py FILE`.

With each using all cores, and with the shares that a node agent gives them: tokens per second of each, and of all.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from replica_memory import RunningReplica, specs

from xinfer_runtime.cluster.core_shares import core_shares
from xinfer_runtime.control_group import usable_cores
from xinfer_runtime.messages import GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec
from xinfer_runtime.routing.link import Link

REPLICAS = 3
SECONDS = 12.0
REPEATS = 3


async def tokens_per_second(link: Link, streams: int) -> float:
    """A closed loop of requests of 64 tokens in and 64 out."""
    count, end = 0, time.monotonic() + SECONDS

    async def stream(number: int) -> None:
        nonlocal count
        turn = 0
        while time.monotonic() < end:
            turn += 1
            prompt = tuple(7 + (number * 31 + index * 17 + turn) % 200 for index in range(64))
            sampling = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
            name = f"{number}-{turn}"
            answer = link.submit(GenerateRequest(id=name, token_ids=prompt, sampling=sampling))
            while not (delta := await answer.receive(name)).last:
                count += len(delta.token_ids) if time.monotonic() < end else 0

    await asyncio.gather(*(stream(number) for number in range(streams)))
    return count / SECONDS


async def measure(spec: ModelSpec, streams: int, shared: bool) -> list[float]:
    shares = core_shares(usable_cores(), dict.fromkeys(range(REPLICAS), usable_cores()))
    with tempfile.TemporaryDirectory() as folder:
        replicas = [RunningReplica(spec, Path(folder)) for _ in range(REPLICAS)]
        try:
            links = []
            for number, replica in enumerate(replicas):
                await replica.ready()
                links.append(await replica.link())
                if shared:
                    replica.use_cores(shares[number])
            rates = await asyncio.gather(*(tokens_per_second(link, streams) for link in links))
            for link in links:
                await link.close()
        finally:
            for replica in replicas:
                await replica.stop()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    spec = specs([parser.parse_args().path], {"max_sequences": 8, "context_length": 512})[0]
    print(f"{REPLICAS} replicas on {usable_cores()} cores")
    for streams in (1, 8):
        sums: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(REPEATS):
            for shared in sums:
                rates = asyncio.run(measure(spec, streams, shared))
                sums[shared].append(sum(rates))
                print(f"  {streams} streams each, {'shared' if shared else 'all cores'}: {[round(r) for r in rates]}")
        apart, together = (statistics.median(sums[shared]) for shared in (False, True))
        print(f"{streams} streams each: {apart:.0f} tokens/s with all cores each, {together:.0f} with shares")


if __name__ == "__main__":
    main()
