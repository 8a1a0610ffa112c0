"""A closed loop of streaming completions against any OpenAI-compatible server, read from raw sockets.

HTTP clients cost more per token than the servers under test; here a chunk costs a search for `data:` and a clock.
"""

import asyncio
import contextlib
import json
import random
import re
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

_COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
_TEXT = re.compile(rb'"text":\s*"[^"]')


@dataclass(frozen=True)
class Endpoint:
    """Where a server takes completions, the model's name there, and the fields that it needs besides OpenAI's."""

    port: int
    model: str
    headers: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class Answer:
    """When a request was sent, when its chunks with text came, and how many tokens it counts."""

    sent: float
    chunks: list[float]
    tokens: int

    @property
    def ttft(self) -> float:
        return self.chunks[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.chunks, self.chunks[1:], strict=False)]


async def complete(endpoint: Endpoint, prompt: list[int], generate: int, temperature: float = 0.0) -> Answer:
    """Stream one completion. Raises RuntimeError for anything but a whole answer of `generate` tokens."""
    body = {
        "model": endpoint.model,
        "prompt": prompt,
        "max_tokens": generate,
        "temperature": temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        **endpoint.fields,
    }
    payload = json.dumps(body).encode()
    lines = ["POST /v1/completions HTTP/1.1", f"Host: 127.0.0.1:{endpoint.port}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(payload)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in endpoint.headers.items()]
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port, limit=1 << 20)
    sent = time.perf_counter()
    chunks: list[float] = []
    tokens, last = 0, b""
    try:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
        while line := await reader.readline():
            if not line.startswith(b"data: {"):
                last = line if line.strip() and not line.startswith(b"data:") else last
                continue
            if _TEXT.search(line):
                chunks.append(time.perf_counter())
            if found := _COMPLETION_TOKENS.search(line):
                tokens = int(found[1])
    finally:
        writer.close()
    tokens = tokens or len(chunks)  # llama-cpp-python's server counts nothing in a stream, where a chunk is a token.
    if tokens != generate or not chunks:
        raise RuntimeError(f"{tokens} tokens instead of {generate}, {len(chunks)} chunks: {last[:300]!r}")
    return Answer(sent, chunks, tokens)


@dataclass(frozen=True)
class Load:
    """`streams` clients, each with `requests` completions one after another; `temperature` 0 is greedy."""

    streams: int
    requests: int
    prompt: int = 128
    generate: int = 128
    temperature: float = 0.0

    def __str__(self) -> str:
        return f"{self.streams} streams x {self.requests}"


async def run_load(endpoint: Endpoint, load: Load, seed: int, vocabulary: int) -> dict[str, float]:
    """The figures of one run. No prompt is met twice, or a prefix cache would answer.

    The times are those under sustained load: without each stream's first request, which all send at once.
    """
    rng = random.Random(seed)
    prompts = [
        [[rng.randrange(100, vocabulary) for _ in range(load.prompt)] for _ in range(load.requests)]
        for _ in range(load.streams)
    ]

    async def client(own: list[list[int]]) -> list[Answer]:
        return [await complete(endpoint, prompt, load.generate, load.temperature) for prompt in own]

    started = time.perf_counter()
    answers = await asyncio.gather(*map(client, prompts))
    seconds = time.perf_counter() - started
    count = load.streams * load.requests
    return {
        **figures([answer for each in answers for answer in each[min(1, load.requests - 1) :]]),
        "tokens_per_s": load.generate * count / seconds,
        "total_tokens_per_s": (load.prompt + load.generate) * count / seconds,
    }


def figures(answers: list[Answer]) -> dict[str, float]:
    """Milliseconds to the first token and between chunks with text."""
    ttft = [1000 * answer.ttft for answer in answers]
    gaps = [1000 * gap for answer in answers for gap in answer.gaps] or [0.0]
    return {
        "ttft_p50": statistics.median(ttft),
        "ttft_p99": quantile(ttft, 0.99),
        "gap_p50": statistics.median(gaps),
        "gap_p99": quantile(gaps, 0.99),
    }


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


async def run_conversations(
    endpoint: Endpoint, streams: int, turns: int, system: int, question: int, generate: int, seed: int, vocabulary: int
) -> dict[str, float]:
    """`streams` conversations at once with a common system prompt, each turn sending all that was said before.

    What the server answered is stood in for by as many random tokens, since a completion returns text and no ids.
    """
    rng = random.Random(seed)
    common = [rng.randrange(100, vocabulary) for _ in range(system)]

    async def converse(number: int) -> list[Answer]:
        own = random.Random(f"{seed}-{number}")
        said, answers = list(common), []
        for _ in range(turns):
            said += [own.randrange(100, vocabulary) for _ in range(question)]
            answers.append(await complete(endpoint, said, generate))
            said += [own.randrange(100, vocabulary) for _ in range(generate)]
        return answers

    started = time.perf_counter()
    every = await asyncio.gather(*(converse(number) for number in range(streams)))
    seconds = time.perf_counter() - started
    later = [answer for answers in every for answer in answers[1:]]
    return {**figures(later), "tokens_per_s": generate * streams * turns / seconds}


async def run_beside_long_prompts(
    endpoint: Endpoint, streams: int, long: int, generate: int, seed: int, vocabulary: int
) -> dict[str, float]:
    """The figures of `streams` clients with two short prompts each, while prompts of `long` tokens come one after the
    other; and the milliseconds that these wait for their first token. Raises RuntimeError where none was answered.
    """
    rng = random.Random(seed)

    def prompt(length: int) -> list[int]:
        return [rng.randrange(100, vocabulary) for _ in range(length)]

    async def client() -> list[Answer]:
        return [await complete(endpoint, prompt(32), generate) for _ in range(2)]

    async def interrupt() -> None:
        while True:
            interruptions.append(await complete(endpoint, prompt(long), 8))

    interruptions: list[Answer] = []
    started = time.perf_counter()
    interrupting = asyncio.create_task(interrupt())
    every = await asyncio.gather(*(client() for _ in range(streams)))
    seconds = time.perf_counter() - started
    interrupting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await interrupting  # It may have failed, and then nobody was interrupted.
    if not interruptions:
        raise RuntimeError(f"no prompt of {long} tokens was answered in {seconds:.0f} s")
    return {
        **figures([answers[1] for answers in every]),
        "tokens_per_s": 2 * generate * streams / seconds,
        "long_ttft_p50": statistics.median(1000 * answer.ttft for answer in interruptions),
    }
