"""How long a stream stands still when its replica is taken away: with what was computed of it, and without.

`python bench/engine/moving.py model.gguf`, with a model of `random_model.py` for instance. A local cluster runs two
replicas; after 32 tokens of an answer its replica is removed, and the stream goes on at the other one. The longest time
between two deltas after that, medians of the repeats, the two ways by turns.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.local import LocalClusterProcess
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.messages import GenerateRequest, SamplingParams
from xinfer_runtime.models import LaunchRequest, ModelStatus
from xinfer_runtime.routing.link import Stream
from xinfer_runtime.routing.router import Router

UID = "moved"
BEFORE, AFTER = 32, 32
"""Tokens of the answer before its replica is removed, and for which it is watched after that."""

_with_state = Stream.left


async def two_ready(session: ClusterSession, router: Router) -> None:
    def ready(status: ModelStatus | None) -> bool:
        return status is not None and [replica.state for replica in status.replicas] == ["ready", "ready"]

    await session.scale(UID, 2)
    await session.wait_until(UID, ready, 300.0)
    while len(router.stats(UID)) < 2:  # noqa: ASYNC110  (the router tells nobody of its links)
        await asyncio.sleep(0.01)


async def pause(session: ClusterSession, router: Router, tokens: int, turn: int, *, state: bool) -> float:
    """Seconds for which the stream stood still."""
    Stream.left = _with_state if state else lambda stream, _: _with_state(stream, None)  # type: ignore[method-assign]
    await two_ready(session, router)
    prompt = tuple(1000 + (turn * 7919 + index * 31) % 20000 for index in range(tokens))
    sampling = SamplingParams(temperature=0, max_tokens=BEFORE + AFTER + 200, ignore_eos=True)
    request = GenerateRequest(id=f"{turn}", token_ids=prompt, sampling=sampling)
    told, removed_at, longest, last = 0, 0, 0.0, time.perf_counter()
    removal: asyncio.Task[object] | None = None
    async with aclosing(router.generate(UID, request)) as deltas:
        async for delta in deltas:
            now = time.perf_counter()
            if removal is not None:
                longest = max(longest, now - last)
                if removal.done() and told >= removed_at + AFTER and longest > 0:
                    break
            last = now
            told += len(delta.token_ids)
            if removal is None and told >= BEFORE:
                busy = next(name for name, stats in router.stats(UID).items() if stats.running)
                removal = asyncio.create_task(session.remove_replica(UID, busy))
                removed_at = told
    assert removal is not None
    await removal
    return longest


async def measure(model: Path, lengths: list[int], repeats: int) -> None:
    credentials = TlsCredentials.create()
    with tempfile.TemporaryDirectory() as home:
        cluster = LocalClusterProcess(Path(home), credentials)
        address = await cluster.start()
        session = ClusterSession(address.scheduler, credentials)
        await session.connect()
        router = Router(session)
        context = max(lengths) + BEFORE + AFTER + 256
        wanted = {"model_path": str(model), "model_uid": UID, "replica": 2, "context_length": context}
        try:
            await session.launch(resolve(LaunchRequest(**wanted, max_sequences=4)))
            turn = 0
            for tokens in lengths:
                pauses: dict[bool, list[float]] = {True: [], False: []}
                for _ in range(repeats):
                    for state in pauses:
                        turn += 1
                        pauses[state].append(await pause(session, router, tokens, turn, state=state))
                moved, computed = (1000 * statistics.median(pauses[state]) for state in (True, False))
                print(f"| {tokens:,} | {moved:.0f} ms | {computed:.0f} ms | {computed / moved:.1f} x |", flush=True)
            await session.terminate(UID)
        finally:
            await router.close()
            await session.close()
            await cluster.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512, 1024, 2048])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print("| tokens | with what was computed | computed again | |\n|---:|---:|---:|---:|")
    asyncio.run(measure(arguments.model.absolute(), arguments.tokens, arguments.repeats))


if __name__ == "__main__":
    main()
