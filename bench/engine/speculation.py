"""What speculation gains and what it costs where it is wrong: `python bench/engine/speculation.py`.

The model is the demo model with layers that cost time and change nothing (`rewrite_gguf.deeper`), so that the demo
model itself is a draft model that is right whenever rounding lets it, and one with its logits turned round is always
wrong. Streams answer questions of the demo model, greedy, 100 tokens each. Tokens per second and
guesses, medians of the repeats, which are interleaved.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewrite_gguf import contrary, deeper

import xinfer_runtime.catalog
from xinfer_runtime.engines.base import Engine
from xinfer_runtime.engines.registry import create_engine
from xinfer_runtime.messages import ChatMessage, Delta, GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec

DEMO = Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf"
QUESTIONS = ("Please count to 30.", "Give me the numbers from 11 to 40.", "What is a notebook?", "Tell me a story.")
TOKENS = 100


class Run:
    """One loaded engine."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self._engine: Engine = create_engine("llama.cpp")
        self._spec = ModelSpec(uid="m", name="m", path=str(path), max_sequences=16, engine_options=options)
        self._done: dict[str, asyncio.Future[None]] = {}
        self._turn = 0

    async def load(self) -> None:
        await self._engine.load(self._spec, self._emit, lambda *_: None)

    async def close(self) -> None:
        await self._engine.close()

    async def measure(self, streams: int) -> tuple[float, float, float]:
        """Tokens per second, guesses per token, and the part of the guesses that came."""
        before, started = self._engine.stats(), time.perf_counter()
        for number in range(streams):
            self._turn += 1
            name = f"{self._turn}"
            self._done[name] = asyncio.get_running_loop().create_future()
            question = ChatMessage(role="user", content=QUESTIONS[(number + self._turn) % len(QUESTIONS)])
            sampling = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
            self._engine.submit(GenerateRequest(id=name, messages=(question,), sampling=sampling))
        await asyncio.gather(*self._done.values())
        self._done.clear()
        seconds, after = time.perf_counter() - started, self._engine.stats()
        drafted = after.drafted_tokens - before.drafted_tokens
        accepted = after.accepted_tokens - before.accepted_tokens
        tokens = streams * TOKENS
        return tokens / seconds, drafted / tokens, accepted / drafted if drafted else 0.0

    def _emit(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if delta.error is not None:
                raise RuntimeError(delta.error.message)
            if delta.last:
                self._done[delta.id].set_result(None)


async def compare(layers: int, repeats: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = deeper(DEMO, Path(folder) / "deep.gguf", layers)
        wrong = contrary(DEMO, Path(folder) / "contrary.gguf")
        kinds: dict[str, dict[str, Any]] = {
            "off": {},
            "prompt-lookup": {"speculation": "prompt-lookup"},
            "a draft model that is right": {"speculation": "draft-model", "draft_model": str(DEMO)},
            "a draft model that is wrong": {"speculation": "draft-model", "draft_model": str(wrong)},
        }
        runs = {kind: Run(model, {"threads": threads, **options}) for kind, options in kinds.items()}
        for run in runs.values():
            await run.load()
            await run.measure(4)
        for streams in (1, 4, 16):
            found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in runs}
            for _ in range(repeats):
                for kind, run in runs.items():
                    found[kind].append(await run.measure(streams))
            plain = statistics.median(rate for rate, _, _ in found["off"])
            for kind, measured in found.items():
                rate, guesses, right = map(statistics.median, zip(*measured, strict=True))
                print(
                    f"{streams:3} streams, {kind:28} {rate:7.0f} tokens/s, x{rate / plain:.2f}, {guesses:.2f} guesses "
                    f"per token, {right:4.0%} came"
                )
        for run in runs.values():
            await run.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=90, help="more than the demo model has (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    asyncio.run(compare(options.layers, options.repeats, options.threads))


if __name__ == "__main__":
    main()
