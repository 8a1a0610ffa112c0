"""What a replica process takes beside what was forecast: `python bench/engine/replica_memory.py FILE...`.

Starts a replica as a node agent does, sends it requests until everything is in use, and reads the memory of its
process; then it measures the processor time of the replica with nothing to do. Without a file: the demo model.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from xinfer_runtime.catalog.embedding_forecast import forecast_embedding
from xinfer_runtime.catalog.forecast import MemoryForecast, cache_shape, forecast
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.catalog.model_kind import LLM
from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.replica_process import ReplicaProcess
from xinfer_runtime.cluster.replica_protocol import FailedLine, ListeningLine, ReadyLine, ReplicaConfig, ReplicaLine
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.messages import EmbedRequest, GenerateRequest, SamplingParams
from xinfer_runtime.models import LaunchRequest, ModelInfo, ModelSpec
from xinfer_runtime.routing.link import Link

COMMAND = (sys.executable, "-m", "xinfer_runtime.cluster.replica_main")
IDLE_SECONDS = 20.0


class RunningReplica:
    """A replica process with the model of `spec`."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        self._credentials = TlsCredentials.create()
        self._listening: asyncio.Future[ListeningLine] = asyncio.get_running_loop().create_future()
        self._ready: asyncio.Future[ReadyLine] = asyncio.get_running_loop().create_future()
        self._process = ReplicaProcess("m-0", folder / "replica.log", self._heard, lambda code, tail: None)
        config = ReplicaConfig(
            replica_id="m-0",
            parent=os.getpid(),
            host="127.0.0.1",
            token="secret",
            credentials=self._credentials,
            spec=spec,
        )
        self._task = asyncio.create_task(self._process.run(COMMAND, config))

    def _heard(self, line: ReplicaLine) -> None:
        if isinstance(line, ListeningLine):
            self._listening.set_result(line)
        elif isinstance(line, ReadyLine):
            self._ready.set_result(line)
        elif isinstance(line, FailedLine):
            self._ready.set_exception(RuntimeError(line.error.message))

    async def ready(self) -> psutil.Process:
        await self._ready
        return psutil.Process((await self._listening).pid)

    async def info(self) -> ModelInfo:
        return (await self._ready).info

    async def link(self) -> Link:
        return await Link.connect((await self._listening).address, "secret", "m-0", self._credentials.client_context())

    def use_cores(self, cores: int) -> None:
        self._process.use_cores(cores)

    async def stop(self) -> None:
        self._process.kill()
        await self._task


async def use(link: Link, requests: int, tokens: int, answer: int) -> None:
    """Run so many requests at once, each with its own prompt."""

    async def one(number: int) -> None:
        prompt = tuple(7 + (number * 31 + index * 17) % 200 for index in range(tokens))
        sampling = SamplingParams(max_tokens=answer, ignore_eos=True, logprobs=1)
        stream = link.submit(GenerateRequest(id=str(number), token_ids=prompt, sampling=sampling))
        while not (await stream.receive(str(number))).last:
            pass

    await asyncio.gather(*(one(number) for number in range(requests)))


async def fill_store(link: Link, cells: int, tokens: int) -> None:
    """Run requests one after the other, each with its own prompt, until so many cells were needed for them."""
    for number in range(-(-cells // tokens)):
        prompt = (number, *(7 + (number * 31 + index * 17) % 200 for index in range(tokens - 1)))
        sampling = SamplingParams(max_tokens=1, ignore_eos=True)
        stream = link.submit(GenerateRequest(id=f"fill {number}", token_ids=prompt, sampling=sampling))
        while not (delta := await stream.receive(f"fill {number}")).last:
            pass
        assert delta.error is None, delta.error


async def use_vectors(link: Link, requests: int, tokens: int) -> None:
    """Compute one input of so many tokens, and then so many requests at once."""

    async def one(number: int, inputs: tuple[tuple[int, ...], ...]) -> None:
        stream = link.submit(EmbedRequest(id=str(number), inputs=inputs))
        assert (await stream.receive(str(number))).error is None

    long = tuple(5 + index % 20 for index in range(tokens))
    await one(0, (long,))
    await asyncio.gather(*(one(number, (long[: tokens // 8],) * 8) for number in range(1, requests + 1)))


async def measure(spec: ModelSpec, idle_seconds: float = IDLE_SECONDS) -> tuple[MemoryForecast, int, float]:
    """What was forecast, the resident bytes after use, and the share of a core that it takes with nothing to do."""
    generates = spec.type == LLM
    file = read_gguf(Path(spec.path))
    predicted = (forecast if generates else forecast_embedding)(file, spec)
    with tempfile.TemporaryDirectory() as folder:
        replica = RunningReplica(spec, Path(folder))
        try:
            process = await replica.ready()
            link = await replica.link()
            length = spec.context_length or 1024
            if generates:
                await use(link, spec.max_sequences or 64, tokens=min(200, length // 2), answer=8)
                if predicted.store:
                    cells = (predicted.kv_cache + predicted.store) // cache_shape(file, Options.of(spec)).bytes_per_cell
                    await fill_store(link, cells, length // 2)
            else:
                await use_vectors(link, 8, length)
            resident = process.memory_info().rss
            before = process.cpu_times()
            await asyncio.sleep(idle_seconds)
            after = process.cpu_times()
            idle = (after.user + after.system - before.user - before.system) / idle_seconds
            await link.close()
        finally:
            await replica.stop()
    return predicted, resident, idle


def specs(paths: list[str], fields: dict[str, Any]) -> list[ModelSpec]:
    requests = [LaunchRequest(model_path=path, n_gpu=None, **fields) for path in paths] or [
        LaunchRequest(model_name="xinfer-demo", n_gpu=None, **fields)
    ]
    return [inspect(resolve(request)) for request in requests]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--max-sequences", type=int)
    parser.add_argument("--context-length", type=int)
    parser.add_argument("--prefix-store-bytes", type=int)
    options = parser.parse_args()
    names = ("max_sequences", "context_length", "prefix_store_bytes")
    fields = {name: value for name in names if (value := getattr(options, name))}
    mib = 1 << 20
    for spec in specs(options.paths, fields):
        predicted, resident, idle = asyncio.run(measure(spec))
        print(
            f"{spec.uid}: forecast {predicted.total / mib:.0f} MiB (weights {predicted.weights / mib:.0f}, KV cache "
            f"{predicted.kv_cache / mib:.0f}, compute {predicted.compute / mib:.1f}, process "
            f"{predicted.process / mib:.0f}, store {predicted.store / mib:.0f}), resident {resident / mib:.0f} MiB, "
            f"{100 * (predicted.total / resident - 1):+.1f} %; idle: {100 * idle:.2f} % of a core"
        )


if __name__ == "__main__":
    main()
