"""What was computed for one request is used for the next, and nobody can tell from the text."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

import xinfer_runtime.catalog
from xinfer_runtime.messages import ChatMessage, GenerateRequest, SamplingParams

RunningEngine = Any
SYSTEM = "You are a careful assistant who knows many things about the world. " * 5
DEMO = Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf"


def cached(running: RunningEngine, request_id: str) -> int:
    usage = running.deltas[request_id][-1].usage
    return int(usage.cached_tokens)


async def both(make: Callable[[], RunningEngine], path: Path, **spec: Any) -> tuple[RunningEngine, RunningEngine]:
    """An engine with a prefix cache and one without."""
    options = spec.pop("engine_options", {})
    sharing, plain = make(), make()
    assert (await sharing.load(path, engine_options=options, **spec)).prefix_cache
    assert not (await plain.load(path, engine_options={**options, "prefix_cache": False}, **spec)).prefix_cache
    return sharing, plain


async def test_the_next_turn_computes_only_what_is_new(engines: Callable[[], RunningEngine], tiny_model: Path) -> None:
    sharing, plain = await both(engines, tiny_model)
    prompt = "First question. "
    for turn in range(4):
        answer = await sharing.greedy(f"turn {turn}", prompt)
        assert answer == await plain.greedy(f"turn {turn}", prompt)
        prompt += "Yes. And then? "  # Not the answer itself: not every byte sequence is text.
    lengths = [sharing.deltas[f"turn {turn}"][-1].usage.prompt_tokens for turn in range(4)]
    assert [cached(sharing, f"turn {turn}") for turn in range(4)] == [0, *lengths[:-1]]
    assert [cached(plain, f"turn {turn}") for turn in range(4)] == [0] * 4
    assert sharing.engine.stats().cached_tokens == sum(lengths[:-1])


async def test_an_answer_that_comes_back_as_history_is_not_computed_again(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    sharing, plain = await both(engines, tiny_model)
    await sharing.greedy("first")
    await plain.greedy("first")
    assert sharing.tokens("first") == plain.tokens("first")
    history = (*b"Hello", *sharing.tokens("first"), *b" Go on")
    sampling = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    request = GenerateRequest(id="second", token_ids=history, sampling=sampling)
    await sharing.run(request)
    await plain.run(request)
    assert sharing.tokens("second") == plain.tokens("second")
    assert cached(sharing, "second") == 5 + 30 - 1  # The last token of an answer is said, but never computed.


async def test_a_system_prompt_that_32_requests_share_is_computed_once(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    sharing, plain = await both(engines, tiny_model, max_sequences=32)
    prompts = [f"{SYSTEM}Question {n}" for n in range(32)]
    texts = await asyncio.gather(*(sharing.greedy(f"r{n}", prompt) for n, prompt in enumerate(prompts)))
    assert texts == await asyncio.gather(*(plain.greedy(f"r{n}", prompt) for n, prompt in enumerate(prompts)))
    assert sum(cached(sharing, f"r{n}") >= len(SYSTEM) - 64 for n in range(32)) == 31
    assert max(len({delta.id for delta in step}) for step in sharing.steps) == 32


async def test_an_aborted_prompt_serves_the_next_request(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    sharing, plain = await both(engines, tiny_model)
    sharing.submit(GenerateRequest(id="gone", prompt=SYSTEM, sampling=SamplingParams(max_tokens=100, ignore_eos=True)))
    await sharing.until(lambda: len(sharing.tokens("gone")) > 2)
    sharing.engine.abort("gone")
    assert await sharing.greedy("next", SYSTEM) == await plain.greedy("next", SYSTEM)
    assert cached(sharing, "next") == sharing.deltas["next"][-1].usage.prompt_tokens - 1


async def test_kept_cells_give_way_to_requests(engines: Callable[[], RunningEngine], tiny_model: Path) -> None:
    sharing, plain = await both(engines, tiny_model, engine_options={"kv_cells": 256}, max_sequences=4)
    for n in range(12):
        prompt = f"{n} and " * (5 + n)
        assert await sharing.greedy(f"r{n}", prompt, 60) == await plain.greedy(f"r{n}", prompt, 60)
    assert sharing.engine._loop._scheduler.preemptions == 0


@pytest.mark.parametrize("trait", ["llama_model_n_swa", "llama_model_is_recurrent", "llama_model_is_hybrid"])
async def test_a_model_whose_cells_cannot_be_shared_shares_none(
    engines: Callable[[], RunningEngine], tiny_model: Path, monkeypatch: pytest.MonkeyPatch, trait: str
) -> None:
    monkeypatch.setattr(llama_cpp, trait, lambda _: 1)
    running = engines()
    assert not (await running.load(tiny_model)).prefix_cache
    for request_id in ("first", "second"):
        await running.greedy(request_id)
        assert cached(running, request_id) == 0


async def test_the_demo_model_says_the_same_with_and_without(engines: Callable[[], RunningEngine]) -> None:
    sharing, plain = await both(engines, DEMO)
    history: tuple[ChatMessage, ...] = (ChatMessage(role="system", content=SYSTEM),)
    for n, question in enumerate(["What is a notebook?", "Who are you?", "Tell me a short story.", "And then?"]):
        history = (*history, ChatMessage(role="user", content=question))
        request = GenerateRequest(
            id=f"turn {n}", messages=history, sampling=SamplingParams(temperature=0, max_tokens=40)
        )
        await sharing.run(request)
        await plain.run(request)
        assert sharing.tokens(request.id) == plain.tokens(request.id)
        history = (*history, ChatMessage(role="assistant", content=sharing.text(request.id)))
    assert cached(sharing, "turn 3") > 0.7 * sharing.deltas["turn 3"][-1].usage.prompt_tokens
