"""What a prefix costs that comes back from host memory, and one that is computed again.

`python bench/engine/prefix_store.py model.gguf`, with a model of `random_model.py` for instance. Two prompts take turns
in a KV cache that has room for one of them, in an engine with a store and in one without, by turns. Times to the first
token, medians of the repeats; with the store they include that the other prompt is saved.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from xinfer_runtime.catalog.forecast import cache_shape
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.engines.llama_cpp.engine import LlamaCppEngine
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.messages import Delta, GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec

PROMPTS = 2


class Run:
    """One loaded engine, whose cache has room for one prompt of so many tokens."""

    def __init__(self, path: Path, tokens: int, store: int) -> None:
        self._engine = LlamaCppEngine()
        options = {"kv_cells": tokens + 16, "prefix_store_bytes": store}
        self._spec = ModelSpec(uid="m", name="m", path=str(path), max_sequences=4, engine_options=options)
        self._tokens = tokens
        self._first: asyncio.Future[None]
        self._turn = 0

    async def load(self) -> None:
        await self._engine.load(self._spec, self._emit, lambda *_: None)

    async def close(self) -> None:
        await self._engine.close()

    @property
    def restored(self) -> int:
        return self._engine.stats().restored_tokens

    async def measure(self) -> float:
        """Seconds to the first token of the prompt whose turn it is. Its last token is new."""
        self._turn += 1
        prompt = [1000 + self._turn % PROMPTS] * (self._tokens - 1) + [2000 + self._turn]
        self._first = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        sampling = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
        self._engine.submit(GenerateRequest(id=str(self._turn), token_ids=tuple(prompt), sampling=sampling))
        await self._first
        return time.perf_counter() - started

    def _emit(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if delta.error is not None:
                self._first.set_exception(RuntimeError(delta.error.message))
            elif delta.last:
                self._first.set_result(None)


async def compare(path: Path, tokens: int, repeats: int) -> None:
    cell = cache_shape(read_gguf(path), Options()).bytes_per_cell
    runs = [Run(path, tokens, 2 * PROMPTS * tokens * cell), Run(path, tokens, 0)]
    for run in runs:
        await run.load()
        for _ in range(PROMPTS + 1):
            await run.measure()
    before = runs[0].restored
    times = [[await run.measure() for run in runs] for _ in range(repeats)]
    restored = (runs[0].restored - before) / repeats
    for run in runs:
        await run.close()
    with_store, without = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{tokens:>6} tokens, {tokens * cell / 2**20:6.1f} MiB: {1000 * with_store:7.1f} ms, {restored:.0f} restored; "
        f"{1000 * without:7.1f} ms computed; {without / with_store:.1f} times",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512, 1024, 2048])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for tokens in arguments.tokens:
        asyncio.run(compare(arguments.model, tokens, arguments.repeats))


if __name__ == "__main__":
    main()
