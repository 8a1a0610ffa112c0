"""What a replica process takes beside what was forecast: `python bench/engine/replica_memory.py FILE...`.

Starts a replica as a node agent does, sends it requests until everything is in use, and reads the memory of its
process; then it measures the processor time of the replica with nothing to do. Without a file: the demo model. With
`--gpu` the model is on the first NVIDIA GPU, whose memory is read too.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
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
from xinfer_runtime.cluster.nvidia_gpus import load_nvml, nvidia_gpus
from xinfer_runtime.cluster.placement_room import GPU_CONTEXT_BYTES, GPU_PROCESS_BYTES
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


@dataclass
class Measured:
    """Bytes, and the share of a core that a replica takes with nothing to do."""

    forecast: MemoryForecast
    resident: int
    on_gpu: int
    """What is used of the GPU's memory beside what was before."""
    allocated: int
    """What llama.cpp says it has allocated, of weights, KV cache and buffers."""
    idle: float


def used_of_gpu() -> int:
    nvml = load_nvml()
    gpus = nvidia_gpus(nvml) if nvml is not None else []
    return gpus[0].memory_total - gpus[0].memory_free if gpus else 0


async def measure(spec: ModelSpec, idle_seconds: float = IDLE_SECONDS) -> Measured:
    generates = spec.type == LLM
    file = read_gguf(Path(spec.path))
    predicted = (forecast if generates else forecast_embedding)(file, spec)
    used_before = used_of_gpu()
    with tempfile.TemporaryDirectory() as folder:
        replica = RunningReplica(spec, Path(folder))
        try:
            process = await replica.ready()
            link = await replica.link()
            length = spec.context_length or 1024
            if generates:
                # Long enough answers that all of them are in the cache at once.
                await use(link, spec.max_sequences or 64, tokens=min(400, length // 2), answer=min(100, length // 4))
                if predicted.store:
                    cells = (predicted.kv_cache + predicted.store) // cache_shape(file, Options.of(spec)).bytes_per_cell
                    await fill_store(link, cells, length // 2)
            else:
                await use_vectors(link, 8, length)
            resident = process.memory_info().rss
            on_gpu = used_of_gpu() - used_before
            before = process.cpu_times()
            await asyncio.sleep(idle_seconds)
            after = process.cpu_times()
            idle = (after.user + after.system - before.user - before.system) / idle_seconds
            allocated = (await replica.info()).memory_bytes
            await link.close()
        finally:
            await replica.stop()
    return Measured(predicted, resident, on_gpu, allocated, idle)


def specs(paths: list[str], fields: dict[str, Any]) -> list[ModelSpec]:
    """Of models on processors, unless `fields` say otherwise."""
    fields = {"n_gpu": None, **fields}
    requests = [LaunchRequest(model_path=path, **fields) for path in paths] or [
        LaunchRequest(model_name="xinfer-demo", **fields)
    ]
    return [inspect(resolve(request)) for request in requests]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--max-sequences", type=int)
    parser.add_argument("--context-length", type=int)
    parser.add_argument("--prefix-store-bytes", type=int)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS)
    options = parser.parse_args()
    names = ("max_sequences", "context_length", "prefix_store_bytes")
    fields = {name: value for name in names if (value := getattr(options, name))}
    if options.gpu:
        fields["n_gpu"] = 1
    for spec in specs(options.paths, fields):
        measured = asyncio.run(measure(spec, options.idle_seconds))
        predicted = measured.forecast
        parts = ", ".join(
            f"{name} {mib(size)}"
            for name, size in (
                ("weights", predicted.weights),
                ("KV cache", predicted.kv_cache),
                ("compute", predicted.compute),
                ("process", predicted.process),
                ("store", predicted.store),
            )
        )
        print(f"{spec.uid}: forecast {mib(predicted.total)} ({parts})")
        print(f"  resident {compared(measured.resident, GPU_PROCESS_BYTES if options.gpu else predicted.total)}")
        if options.gpu:
            print(f"  on the GPU {compared(measured.on_gpu, predicted.total + GPU_CONTEXT_BYTES)}")
            print(f"  of it llama.cpp's own {mib(measured.allocated)}")
        print(f"  idle: {100 * measured.idle:.2f} % of a core", flush=True)


def mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def compared(size: int, expected: int) -> str:
    return f"{mib(size)}, {mib(expected)} expected: {100 * (expected / size - 1):+.1f} %"


if __name__ == "__main__":
    main()
