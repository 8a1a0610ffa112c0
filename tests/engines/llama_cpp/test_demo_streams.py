"""64 streams at once on the demo model: each says what it says alone, whoever joins, leaves or is preempted."""

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.engine.rewrite_gguf import in_full_precision

import xinfer_runtime.catalog
from xinfer_runtime.messages import ChatMessage, GenerateRequest, SamplingParams

RunningEngine = Any
DEMO = Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf"
QUESTIONS: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "demo_model" / "held_out.json").read_text())
STREAMS = 64
SURE = ("counting", "facts", "json", "sums", "words")
"""Kinds of questions that the model is sure of, so that rounding turns no choice."""


def questions(*categories: str, on_and_on: bool = False) -> list[GenerateRequest]:
    """Those of these kinds, or all; with answers that only end after so many tokens."""
    return [
        GenerateRequest(
            id=f"r{number}",
            messages=tuple(ChatMessage(role=each["role"], content=each["content"]) for each in question["messages"]),
            sampling=SamplingParams(temperature=0, max_tokens=60, ignore_eos=on_and_on),
        )
        for number, question in enumerate(QUESTIONS[::2])
        if not categories or question["category"] in categories
    ]


async def ask_all(running: RunningEngine, requests: list[GenerateRequest], aborted: set[str]) -> None:
    """Keep 64 streams going, each with one question after another, some of which are given up after a few tokens."""
    left = iter(requests)

    async def stream() -> None:
        for request in left:
            running.submit(request)
            if request.id in aborted:
                await running.until(lambda request=request: len(running.tokens(request.id)) > 2)
                running.engine.abort(request.id)
            else:
                await running.finish(request.id)

    await asyncio.gather(*(stream() for _ in range(STREAMS)))


@pytest.mark.parametrize(
    ("full_precision", "options"),
    [(True, {}), (True, {"kv_cells": 1600, "token_budget": 96}), (True, {"speculation": "prompt-lookup"}), (False, {})],
    ids=["f32", "f32, too few cells", "f32, guessing", "as it is shipped"],
)
async def test_64_streams_say_what_each_says_alone(
    engines: Callable[[], RunningEngine], tmp_path: Path, full_precision: bool, options: dict[str, Any]
) -> None:
    path = in_full_precision(DEMO, tmp_path / "demo-f32.gguf") if full_precision else DEMO
    crowded = "kv_cells" in options
    requests = questions(*(() if full_precision and not crowded else SURE), on_and_on=crowded)
    aborted = {request.id for request in random.Random(5).sample(requests, len(requests) // 8)}
    alone, crowd = engines(), engines()
    await alone.load(path, {"prefix_cache": False}, max_sequences=1)
    await crowd.load(path, options, max_sequences=STREAMS)

    await ask_all(crowd, requests, aborted)

    assert max(len(step) for step in crowd.steps) > STREAMS / 8
    for request in requests:
        await alone.run(request)
        said, whole = crowd.tokens(request.id), alone.tokens(request.id)
        if request.id in aborted:
            assert said == whole[: len(said)]
        else:
            assert said == whole
            assert crowd.text(request.id) == alone.text(request.id)
    stats = crowd.engine.stats()
    assert (stats.running, stats.waiting, stats.kv_used) == (0, 0, 0)
    if crowded:
        assert crowd.engine._loop._scheduler.preemptions > 0
