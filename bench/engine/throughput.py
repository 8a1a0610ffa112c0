"""Measure the engine alone, without HTTP and links: `python bench/engine/throughput.py MODEL.gguf`.

All streams of a run start at once, with prompts of random token ids, and make the same number of tokens. The table has
medians over the repeats: generated tokens/s over the whole run (prefill included) and after the last stream's first
token (decode only), time to first token, and the time between two tokens of a stream.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xinfer_runtime.engines.base import Engine
from xinfer_runtime.engines.registry import create_engine
from xinfer_runtime.messages import Delta, GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec

VOCABULARY = 30000


@dataclass
class Stream:
    times: list[float] = field(default_factory=list)
    tokens: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Bench:
    """One loaded model and the streams it currently serves."""

    def __init__(self) -> None:
        self.engine: Engine = create_engine("llama.cpp")
        self.streams: dict[str, Stream] = {}
        # One source for all runs: no prompt may be met twice, or a prefix cache would answer.
        self.rng = random.Random(1)

    async def load(self, path: Path, options: dict[str, Any], context: int, sequences: int | None) -> None:
        spec = ModelSpec(
            uid="bench",
            name="bench",
            path=str(path),
            context_length=context,
            max_sequences=sequences,
            engine_options=options,
        )
        await self.engine.load(spec, self._emit, lambda *_: None)

    def _emit(self, deltas: Sequence[Delta]) -> None:
        now = time.perf_counter()
        for delta in deltas:
            stream = self.streams[delta.id]
            if delta.error is not None:
                raise RuntimeError(delta.error.message)
            stream.tokens += len(delta.token_ids)
            if delta.token_ids:
                stream.times.append(now)
            if delta.last:
                stream.done.set()

    async def run(self, count: int, prompt: int, generate: int, temperature: float) -> dict[str, float]:
        self.streams = {f"{count}-{i}-{time.monotonic_ns()}": Stream() for i in range(count)}
        sampling = SamplingParams(temperature=temperature, max_tokens=generate, ignore_eos=True, seed=1)
        start = time.perf_counter()
        for request_id in self.streams:
            ids = tuple(self.rng.randrange(100, VOCABULARY) for _ in range(prompt))
            self.engine.submit(GenerateRequest(id=request_id, token_ids=ids, sampling=sampling))
        streams = list(self.streams.values())
        await asyncio.gather(*(stream.done.wait() for stream in streams))
        end = time.perf_counter()
        tokens = sum(stream.tokens for stream in streams)
        last_first = max(stream.times[0] for stream in streams)
        decoded = sum(sum(t > last_first for t in stream.times) for stream in streams)
        gaps = [b - a for stream in streams for a, b in zip(stream.times, stream.times[1:], strict=False)]
        ttft = sorted(stream.times[0] - start for stream in streams)
        return {
            "tokens_per_s": tokens / (end - start),
            "decode_tokens_per_s": decoded / (end - last_first) if end > last_first else 0.0,
            "ttft_p50_ms": 1000 * statistics.median(ttft),
            "ttft_max_ms": 1000 * ttft[-1],
            "gap_p50_ms": 1000 * statistics.median(gaps),
            "gap_p99_ms": 1000 * sorted(gaps)[int(0.99 * (len(gaps) - 1))],
        }


async def measure(options: argparse.Namespace) -> None:
    bench = Bench()
    counts = [int(n) for n in options.streams.split(",")]
    await bench.load(options.model, json.loads(options.engine_options), options.context, max(counts))
    await bench.run(1, options.prompt, 8, 0.0)
    names: list[str] = []
    try:
        for count in counts:
            runs = [
                await bench.run(count, options.prompt, options.generate, options.temperature)
                for _ in range(options.repeats)
            ]
            if not names:
                names = list(runs[0])
                print("streams  " + "  ".join(names))
            row = {name: statistics.median(run[name] for run in runs) for name in names}
            print(f"{count:7d}  " + "  ".join(f"{row[name]:{len(name)}.1f}" for name in names), flush=True)
    finally:
        await bench.engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--streams", default="1,4,16,64")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engine-options", default="{}", help="JSON, such as '{\"threads\": 2}'")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
