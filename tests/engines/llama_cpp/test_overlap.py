"""Text made while the next pass runs, as on a GPU: nobody can tell from what comes out."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xinfer_runtime.engines.llama_cpp import engine as engine_module
from xinfer_runtime.engines.llama_cpp.loop import EngineLoop
from xinfer_runtime.messages import FinishReason, GenerateRequest, SamplingParams

RunningEngine = Any


@pytest.fixture
async def overlapping(
    engines: Callable[[], RunningEngine], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> RunningEngine:
    def overlapping_loop(*args: Any, **options: Any) -> EngineLoop:
        return EngineLoop(*args, **{**options, "overlap": True})

    monkeypatch.setattr(engine_module, "EngineLoop", overlapping_loop)
    engine = engines()
    await engine.load(tiny_model, max_sequences=8)
    return engine


def request(name: str, prompt: str, **sampling: Any) -> GenerateRequest:
    params = SamplingParams(temperature=0, ignore_eos=True, **{"max_tokens": 30, **sampling})
    return GenerateRequest(id=name, prompt=prompt, sampling=params)


async def test_the_same_text_comes(overlapping: RunningEngine, running: RunningEngine) -> None:
    prompts = {f"r{n}": f"Say {n}" for n in range(6)}
    for engine in (overlapping, running):
        for name, prompt in prompts.items():
            engine.submit(request(name, prompt, max_tokens=10 + len(name)))
    for name in prompts:
        ours, theirs = await overlapping.finish(name), await running.finish(name)
        assert overlapping.text(name) == running.text(name)
        assert ours[-1].usage == theirs[-1].usage
        assert ours[-1].finish_reason is FinishReason.LENGTH


async def test_a_stop_string_ends_a_request_whose_next_token_is_being_computed(overlapping: RunningEngine) -> None:
    text = await overlapping.greedy("whole", "Hello")
    others = [request(f"other{n}", f"Other {n}", max_tokens=40) for n in range(3)]
    for other in others:
        overlapping.submit(other)
    stop = text[8:11]
    stopped = await overlapping.run(request("stopped", "Hello", stop=(stop,)))
    assert overlapping.text("stopped") == text[: text.index(stop)]
    assert stopped[-1].finish_reason is FinishReason.STOP
    assert stopped[-1].usage is not None
    assert stopped[-1].usage.completion_tokens == len(overlapping.tokens("stopped"))
    for other in others:
        assert len([t for delta in await overlapping.finish(other.id) for t in delta.token_ids]) == 40
    assert await overlapping.greedy("again", "Hello") == text
    stats = overlapping.engine.stats()
    assert (stats.running, stats.kv_used) == (0, 0)


async def test_an_aborted_request_says_nothing_more(overlapping: RunningEngine) -> None:
    overlapping.submit(request("long", "Hello", max_tokens=400))
    await overlapping.until(lambda: len(overlapping.deltas["long"]) > 3)
    overlapping.engine.abort("long")
    said = len(overlapping.deltas["long"])
    assert len(await overlapping.greedy("next", "Hi")) > 0
    await asyncio.sleep(0.05)
    assert len(overlapping.deltas["long"]) == said
