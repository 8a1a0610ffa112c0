"""Routing policies side by side, on four real replicas of a model with random weights in a local cluster.

    python -m bench.routing.compare [--repeats N] [--replicas N] [--json]

The policies: each replica in turn; the one with the fewest requests; ours (`choice.py`). The loads, by `--clients`
clients that each send one request after the other:

- `multi_turn`: conversations that grow by a question and an answer each turn, all of them beginning with one text;
- `shared_prefix`: requests with one of some long texts at the start, such as documents, and a short question.

TTFT is from the call of the router to the first token, in ms; the hit rate is the share of prompt tokens that were in
the replica's KV cache; tokens/s are generated tokens of all clients. Each repeat has fresh texts, and policies take
turns, so that none gets a quieter machine; figures are medians over the repeats.

`cost` is the time that routing one 24 KB prompt takes, without any replica: median over 2,000 requests, in us.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.engine.random_model import SHAPES, write

from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.local import LocalClusterProcess
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.messages import ChatMessage, GenerateRequest, SamplingParams
from xinfer_runtime.models import EngineStats, ModelInfo, ModelSpec
from xinfer_runtime.routing import router as routing
from xinfer_runtime.routing.choice import Choice, Reason
from xinfer_runtime.routing.prompt_blocks import Prompt, prompt_of
from xinfer_runtime.routing.replica_choice import Choosable, ReplicaChoice
from xinfer_runtime.routing.router import Router
from xinfer_runtime.routing.workload import Workload

UID = "bench"
ANSWER = 16
CONVERSATIONS, TURNS, COMMON, QUESTION = 24, 5, 128, 256
DOCUMENTS, DOCUMENT, ASKED = 16, 1200, 5


class RoundRobin(ReplicaChoice):
    def choose(self, replicas: Sequence[Choosable], prompt: Prompt, now: float) -> Choice:
        self._turn += 1
        return Choice(self._turn % len(replicas), Reason.LOAD, 0)


class LeastLoaded(ReplicaChoice):
    def choose(self, replicas: Sequence[Choosable], prompt: Prompt, now: float) -> Choice:
        self._turn += 1
        start = self._turn % len(replicas)
        order = [*range(start, len(replicas)), *range(start)]
        return Choice(min(order, key=lambda index: replicas[index].outstanding), Reason.LOAD, 0)


POLICIES: dict[str, type[ReplicaChoice]] = {
    "round robin": RoundRobin,
    "least loaded": LeastLoaded,
    "ours": ReplicaChoice,
}


class Run:
    """One load on one policy."""

    def __init__(self, router: Router, seed: int) -> None:
        self.router = router
        self.random = random.Random(seed)
        self.ttft: list[float] = []
        self.prompt = self.cached = self.generated = 0

    def text(self, tokens: int) -> tuple[int, ...]:
        return tuple(self.random.randrange(94, 30_000) for _ in range(tokens))

    async def ask(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        started = time.perf_counter()
        answer: list[int] = []
        request = GenerateRequest(
            id="r", token_ids=tokens, sampling=SamplingParams(temperature=0, max_tokens=ANSWER, ignore_eos=True)
        )
        async with aclosing(self.router.generate(UID, request)) as deltas:
            async for delta in deltas:
                if delta.token_ids and not answer:
                    self.ttft.append(time.perf_counter() - started)
                answer += delta.token_ids
                if delta.usage is not None:
                    self.prompt += delta.usage.prompt_tokens
                    self.cached += delta.usage.cached_tokens
                    self.generated += delta.usage.completion_tokens
        return tuple(answer)

    async def multi_turn(self, clients: int) -> None:
        common = self.text(COMMON)
        states = [common for _ in range(CONVERSATIONS)]
        questions = [[self.text(QUESTION) for _ in range(CONVERSATIONS)] for _ in range(TURNS)]
        for turn in questions:
            await self._by(clients, [self._turn(states, number, turn[number]) for number in self._shuffled()])

    async def shared_prefix(self, clients: int) -> None:
        documents = [self.text(DOCUMENT) for _ in range(DOCUMENTS)]
        asked = [(*document, *self.text(32)) for document in documents for _ in range(ASKED)]
        self.random.shuffle(asked)
        await self._by(clients, [self.ask(prompt) for prompt in asked])

    async def _turn(self, states: list[tuple[int, ...]], number: int, question: tuple[int, ...]) -> None:
        states[number] += question
        states[number] += await self.ask(states[number])

    def _shuffled(self) -> list[int]:
        return self.random.sample(range(CONVERSATIONS), CONVERSATIONS)

    async def _by(self, clients: int, work: list[Any]) -> None:
        left = iter(work)

        async def client() -> None:
            for each in left:
                await each

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())

    def figures(self, seconds: float) -> dict[str, float]:
        times = sorted(self.ttft)
        return {
            "ttft_p50_ms": statistics.median(times) * 1e3,
            "ttft_p99_ms": times[int(0.99 * (len(times) - 1))] * 1e3,
            "hit_rate": self.cached / self.prompt,
            "tokens_per_second": self.generated / seconds,
        }


async def compare(options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.gguf"
        write(path, SHAPES["15m"])
        credentials = TlsCredentials.create()
        cluster = LocalClusterProcess(Path(folder), credentials)
        session = ClusterSession((await cluster.start()).scheduler, credentials)
        try:
            await session.connect()
            spec = ModelSpec(
                uid=UID, name=UID, path=str(path), replica=options.replicas, context_length=4096, max_sequences=4
            )
            await session.launch(spec)
            await session.wait_until(
                UID, lambda status: status is not None and all(r.state == "ready" for r in status.replicas), 120
            )
            for repeat in range(options.repeats):
                for load in ("multi_turn", "shared_prefix"):
                    for number, (policy, choice) in enumerate(POLICIES.items()):
                        routing.ReplicaChoice = choice  # type: ignore[misc]
                        router = Router(session)
                        while len(router.stats(UID)) < options.replicas:  # noqa: ASYNC110
                            await asyncio.sleep(0.05)
                        run = Run(router, seed=1000 * repeat + number)
                        started = time.perf_counter()
                        await getattr(run, load)(options.clients)
                        figures = run.figures(time.perf_counter() - started)
                        results.setdefault(load, {}).setdefault(policy, []).append(figures)
                        print(load, policy, {name: round(value, 2) for name, value in figures.items()}, flush=True)
                        await router.close()
        finally:
            await session.close()
            await cluster.close()
    medians = {
        load: {
            policy: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            for policy, runs in policies.items()
        }
        for load, policies in results.items()
    }
    return {**medians, "cost": {f"{count} replicas": cost(count) for count in (4, 32, 256, 2000)}}


def cost(replicas: int) -> dict[str, float]:
    """Of 50 conversations with 24 KB prompts that have a first message in common."""
    info = ModelInfo(context_length=0, vocab_size=0, abilities=(), prefix_cache=True)
    links = [
        SimpleNamespace(
            address=f"{n}", workload=Workload(), stats=EngineStats(kv_total=131_072), info=info, others=0, outstanding=0
        )
        for n in range(replicas)
    ]
    words = random.Random(1)
    texts = ["".join(words.choices("abcdefghijklmnopqrstuvwxyz ", k=2048)) for _ in range(12)]
    choice, times = ReplicaChoice(), []
    for number in range(2000):
        messages = [ChatMessage(role="user", content=texts[0])]
        messages += [ChatMessage(role="user", content=f"{number % 50} {text}") for text in texts[1:]]
        request = GenerateRequest(id="r", messages=tuple(messages))
        started = time.perf_counter()
        prompt = prompt_of(request)
        chosen = choice.choose(links, prompt, 0.0)
        errand = choice.sent(links[chosen.index], prompt, chosen.cached, request, 0.0)
        times.append(time.perf_counter() - started)
        if number % 2:
            errand.end()
    times.sort()
    return {"p50_us": times[1000] * 1e6, "p99_us": times[1980] * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--cost-only", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.cost_only:
        print(json.dumps({f"{count} replicas": cost(count) for count in (4, 32, 256, 2000)}, indent=2))
        return
    results = asyncio.run(compare(options))
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for load, policies in results.items():
        for policy, figures in policies.items():
            print(load, policy, *(f"{name}={value:.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
