"""The whole engine on a tiny model: many requests at once, joining, leaving, pressure, resumption."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice
from xinfer_runtime.messages import (
    ChatMessage,
    DryParams,
    FinishReason,
    GenerateRequest,
    MirostatParams,
    Priority,
    SamplingParams,
    Usage,
)

RunningEngine = Any
PROMPTS = [f"{word} number {n}" for n in range(16) for word in ("prompt", "a much longer text with the", "x", "")]


def greedy(request_id: str, prompt: str, tokens: int = 20, **fields: Any) -> GenerateRequest:
    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    return GenerateRequest(id=request_id, prompt=prompt, sampling=sampling, **fields)


async def test_a_loaded_model_tells_what_it_is(engines: Callable[[], RunningEngine], tiny_model: Path) -> None:
    running = engines()
    info = await running.load(tiny_model)
    assert (info.context_length, info.vocab_size, info.architecture) == (512, 262, "llama")
    assert set(info.abilities) == {"generate", "chat", "tools"}
    assert info.memory_bytes > 1 << 20
    fractions = [fraction for fraction, _ in running.progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


async def test_64_requests_at_once_say_what_each_says_alone(running: RunningEngine) -> None:
    alone = [await running.greedy(f"alone {n}", prompt) for n, prompt in enumerate(PROMPTS)]
    together = await asyncio.gather(*(running.greedy(f"together {n}", p) for n, p in enumerate(PROMPTS)))
    assert together == alone
    assert max(len({delta.id for delta in step}) for step in running.steps) > 32
    assert len(set(alone)) == len(PROMPTS)


async def test_requests_join_and_leave_at_any_step(running: RunningEngine) -> None:
    alone = await running.greedy("alone", tokens=100)
    long = asyncio.ensure_future(running.greedy("long", tokens=100))
    for n in range(12):
        await running.until(lambda n=n: len(running.tokens("long")) >= 5 * n)
        running.submit(greedy(f"joins {n}", "hello", 5 + n))
        if n % 3 == 0:
            running.engine.abort(f"joins {n}")
    assert await long == alone
    for n in range(12):
        if n % 3:
            await running.finish(f"joins {n}")


async def test_an_abort_frees_the_slot_and_silences_the_request(running: RunningEngine) -> None:
    running.submit(greedy("stays", "a", 400))
    running.submit(greedy("goes", "b", 400))
    await running.until(lambda: len(running.tokens("goes")) > 3)
    running.engine.abort("goes")
    said, steps = len(running.deltas["goes"]), len(running.deltas["stays"])
    await running.until(lambda: len(running.deltas["stays"]) >= steps + 2)
    assert running.engine.stats().running == 1
    assert len(running.deltas["goes"]) == said
    running.engine.abort("stays")


async def test_a_prompt_is_told_as_soon_as_it_is_computed_and_once(running: RunningEngine) -> None:
    for name, words in (("short", 2), ("long", 300)):
        running.submit(greedy(name, "x" * words, 5))
        deltas = await running.finish(name)
        told = [delta.prompt_tokens for delta in deltas]
        assert told[0] == deltas[-1].usage.prompt_tokens
        assert set(told[1:]) <= {0}
        assert deltas[0].only_begins is (name == "long")


async def test_an_abort_before_the_request_was_prepared_leaves_nothing_behind(running: RunningEngine) -> None:
    for n in range(200):
        running.submit(greedy(f"r{n}", "some text " * 20, 400))
        running.engine.abort(f"r{n}")
    assert await running.greedy("after")
    assert (running.engine.stats().running, running.engine.stats().waiting) == (0, 0)
    assert all(not running.deltas[f"r{n}"] for n in range(200))


async def test_an_unknown_abort_is_ignored(running: RunningEngine) -> None:
    running.engine.abort("nobody")
    assert await running.greedy("after")


async def test_a_request_under_the_same_id_replaces_the_earlier_one(running: RunningEngine) -> None:
    running.submit(greedy("same", "first", 400))
    await running.until(lambda: len(running.tokens("same")) > 3)
    assert await running.greedy("same", "second") == await running.greedy("other", "second")
    assert running.engine.stats().running == 0


async def test_requests_beyond_the_slots_wait_their_turn(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    running = engines()
    await running.load(tiny_model, max_sequences=2)
    texts = await asyncio.gather(*(running.greedy(f"r{n}", prompt) for n, prompt in enumerate(PROMPTS[:8])))
    assert max(len({delta.id for delta in step}) for step in running.steps) == 2
    assert texts == [await running.greedy(f"again {n}", prompt) for n, prompt in enumerate(PROMPTS[:8])]


async def test_when_the_cache_is_full_requests_are_recomputed_and_say_the_same(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    roomy, tight = engines(), engines()
    await roomy.load(tiny_model)
    await tight.load(tiny_model, engine_options={"kv_cells": 256})
    expected = await asyncio.gather(*(roomy.greedy(f"r{n}", PROMPTS[n], 100) for n in range(8)))
    got = await asyncio.gather(*(tight.greedy(f"r{n}", PROMPTS[n], 100) for n in range(8)))
    assert got == expected
    assert sum(len(tight.tokens(f"r{n}")) for n in range(8)) == 800
    # All eight need 870 cells at the end: without preemption they could not have run side by side.
    assert max(len({delta.id for delta in step}) for step in tight.steps) > 2


async def test_a_long_prompt_is_computed_in_chunks_while_others_go_on(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    chunked, whole = engines(), engines()
    await chunked.load(tiny_model, max_sequences=4, engine_options={"token_budget": 16})
    await whole.load(tiny_model, max_sequences=4)
    prompt = "a long prompt " * 25
    other = asyncio.ensure_future(chunked.greedy("other", tokens=400))
    await chunked.until(lambda: len(chunked.tokens("other")) > 2)
    before = len(chunked.tokens("other"))
    assert await chunked.greedy("long", prompt) == await whole.greedy("long", prompt)
    first = next(
        n for n, step in enumerate(chunked.steps) if any(each.id == "long" and each.token_ids for each in step)
    )
    # What was computed before it comes with it at the latest.
    assert sum(delta.id == "other" for step in chunked.steps[: first + 1] for delta in step) > before + 15
    await other


async def test_a_seed_reproduces_a_sampled_text_alone_and_in_company(running: RunningEngine) -> None:
    def sampled(request_id: str, seed: int) -> GenerateRequest:
        sampling = SamplingParams(temperature=1.0, top_p=0.95, top_k=50, seed=seed, max_tokens=30, ignore_eos=True)
        return GenerateRequest(id=request_id, prompt="Hello", sampling=sampling)

    await running.run(sampled("alone", 7))
    await asyncio.gather(*(running.run(sampled(f"r{seed}", seed)) for seed in range(10)))
    assert running.tokens("r7") == running.tokens("alone")
    assert len({tuple(running.tokens(f"r{seed}")) for seed in range(10)}) == 10


@pytest.mark.parametrize("cut", [1, 7, 29])
@pytest.mark.parametrize("exact", [0, 256])
async def test_a_resumed_request_goes_on_where_it_was_cut(
    engines: Callable[[], RunningEngine], tiny_model: Path, cut: int, exact: int
) -> None:
    running = engines()
    await running.load(tiny_model, engine_options={"exact_resume_tokens": exact, "prefix_cache": False})
    sampling = SamplingParams(temperature=0.8, seed=3, max_tokens=30, repetition_penalty=1.3, ignore_eos=True)
    await running.run(GenerateRequest(id="whole", prompt="Hello", sampling=sampling))
    whole = running.tokens("whole")
    resumed = GenerateRequest(id="rest", prompt="Hello", sampling=sampling, resume=tuple(whole[:cut]))
    last = (await running.run(resumed))[-1]
    assert running.tokens("rest") == whole[cut:]
    assert (last.usage, last.finish_reason) == (Usage(5, 30), FinishReason.LENGTH)
    assert running.text("whole").endswith(running.text("rest"))


@pytest.mark.parametrize("cut", [1, 13, 29])
@pytest.mark.parametrize("mode", [0, 1, 2])
async def test_dry_and_mirostat_go_on_as_if_never_cut(
    engines: Callable[[], RunningEngine], tiny_model: Path, cut: int, mode: int
) -> None:
    running = engines()
    await running.load(tiny_model, engine_options={"prefix_cache": False})
    sampling = SamplingParams(
        seed=5,
        max_tokens=40,
        ignore_eos=True,
        temperature=0.7,
        dry=DryParams(multiplier=3.0, allowed_length=1, sequence_breakers=("!",)),
        mirostat=MirostatParams(mode=mode, tau=3.0, eta=0.5) if mode else None,
    )
    request = GenerateRequest(id="whole", prompt="go and go and go", sampling=sampling)
    deltas = await running.run(request)
    whole = running.tokens("whole")
    assert len(deltas) == len(whole)  # One a step, so that the cut is known.
    mu = deltas[cut - 1].mirostat_mu
    assert (mu is None) == (mode == 0)
    await running.run(replace(request, id="rest", resume=tuple(whole[:cut]), resume_mu=mu))
    assert running.tokens("rest") == whole[cut:]
    if mode:
        # Without the state the text is another one: so it is what carries over.
        await running.run(replace(request, id="lost", resume=tuple(whole[:cut]), resume_mu=mu + 9))
        assert running.deltas["lost"][-1].mirostat_mu != running.deltas["rest"][-1].mirostat_mu


async def test_the_share_of_the_cores_can_change_while_requests_run(
    engines: Callable[[], RunningEngine], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    choose = ThreadChoice.threads
    monkeypatch.setattr(ThreadChoice, "threads", lambda self, tokens: passes.append(choose(self, 99)) or passes[-1])
    running = engines()
    running.engine.use_cores(3)
    await running.load(tiny_model, engine_options={"threads": None})
    before = await running.greedy("before", tokens=10)
    assert set(passes) == {3}
    running.engine.use_cores(2)
    assert await running.greedy("after", tokens=10) == before
    assert passes[-1] == 2


async def test_a_stop_string_ends_a_request_in_the_middle(running: RunningEngine) -> None:
    whole = await running.greedy("whole", tokens=40)
    stop = whole[12:15]
    sampling = SamplingParams(temperature=0, max_tokens=40, stop=(stop,), ignore_eos=True)
    deltas = await running.run(GenerateRequest(id="stopped", prompt="Hello", sampling=sampling))
    assert running.text("stopped") == whole[: whole.index(stop)]
    assert deltas[-1].finish_reason is FinishReason.STOP


async def test_streamed_text_is_the_text_of_all_bytes_together(running: RunningEngine) -> None:
    sampling = SamplingParams(temperature=5.0, seed=1, max_tokens=400, ignore_eos=True)
    await running.run(GenerateRequest(id="bytes", prompt="", sampling=sampling))
    vocabulary = running.engine._model.facts
    raw = b"".join(vocabulary.piece(token) for token in running.tokens("bytes"))
    assert running.text("bytes") == raw.decode(errors="replace")
    assert any(ord(character) > 0x7F and character != "\ufffd" for character in running.text("bytes"))


async def test_the_end_of_the_context_ends_a_request(running: RunningEngine) -> None:
    sampling = SamplingParams(temperature=0, ignore_eos=True)
    deltas = await running.run(GenerateRequest(id="full", prompt="x" * 500, sampling=sampling))
    assert (deltas[-1].finish_reason, deltas[-1].usage) == (FinishReason.LENGTH, Usage(500, 12))


async def test_messages_and_token_ids_are_prompts_too(running: RunningEngine) -> None:
    chat = GenerateRequest(
        id="chat", messages=(ChatMessage(role="user", content="hi"),), sampling=SamplingParams(max_tokens=2)
    )
    rendered = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    text = GenerateRequest(id="text", prompt=rendered, sampling=SamplingParams(max_tokens=2))
    ids = GenerateRequest(id="ids", token_ids=(72, 101), sampling=SamplingParams(max_tokens=2))
    usages = [(await running.run(request))[-1].usage.prompt_tokens for request in (chat, text, ids)]
    assert usages == [usages[0], usages[0], 2]


async def test_an_empty_prompt_begins_a_text(running: RunningEngine) -> None:
    deltas = await running.run(GenerateRequest(id="empty", prompt="", sampling=SamplingParams(max_tokens=3)))
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.prompt_tokens == 1


async def test_the_statistics_count_what_happens(running: RunningEngine) -> None:
    assert running.engine.stats().kv_total > 0
    running.submit(greedy("r", "Hello", 400))
    await running.until(lambda: len(running.tokens("r")) > 20)
    stats = running.engine.stats()
    assert stats.running == 1
    assert stats.kv_used >= 25
    assert stats.tokens_per_second > 0
    assert 0 < stats.step_seconds < 30
    await running.finish("r")
    after = running.engine.stats()
    assert (after.running, after.kv_used, after.prompt_tokens, after.completion_tokens) == (0, 0, 5, 400)


async def test_a_storm_of_requests_and_aborts_under_pressure_changes_no_text(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    chance = random.Random(4)
    roomy, tight = engines(), engines()
    await roomy.load(tiny_model)
    await tight.load(tiny_model, max_sequences=6, engine_options={"kv_cells": 300, "token_budget": 16})
    requests = [
        greedy(f"r{n}", "".join(chance.choices("abc xyz", k=chance.randint(0, 120))), chance.randint(1, 150))
        for n in range(60)
    ]
    aborted = set()
    for n, request in enumerate(requests):
        tight.submit(request)
        if chance.random() < 0.3:
            victim = chance.randrange(n + 1)
            tight.engine.abort(f"r{victim}")
            aborted.add(victim)
        await asyncio.sleep(chance.choice([0, 0, 0.005]))
    await asyncio.gather(*(roomy.run(request) for request in requests))
    for n, request in enumerate(requests):
        if n not in aborted:
            await tight.finish(request.id)
            assert tight.text(request.id) == roomy.text(request.id)
    assert (tight.engine.stats().running, tight.engine.stats().waiting, tight.engine.stats().kv_used) == (0, 0, 0)
    assert tight.engine._loop._scheduler.preemptions > 0


async def test_a_request_whose_time_is_over_ends_and_leaves_nothing_behind(running: RunningEngine) -> None:
    sampling = SamplingParams(max_tokens=480, ignore_eos=True)
    running.submit(GenerateRequest(id="late", prompt="Hello", sampling=sampling, timeout=0.0))
    running.submit(GenerateRequest(id="in time", prompt="Hello", sampling=replace(sampling, max_tokens=5), timeout=60))
    error = (await running.finish("late"))[-1].error
    assert error is not None
    assert error.code == "deadline_exceeded"
    assert (await running.finish("in time"))[-1].finish_reason is FinishReason.LENGTH
    assert await running.greedy("after")
    stats = running.engine.stats()
    assert (stats.running, stats.waiting, stats.kv_used) == (0, 0, 0)


async def test_interactive_requests_go_ahead_of_batch_ones(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    running = engines()
    await running.load(tiny_model, max_sequences=1)
    running.submit(replace(greedy("first", "first", 200), priority=Priority.BATCH))
    await running.until(lambda: bool(running.tokens("first")))
    for name, priority in (("batch", Priority.BATCH), ("urgent", Priority.INTERACTIVE)):
        running.submit(replace(greedy(name, name, 5), priority=priority))
    await asyncio.gather(*(running.finish(name) for name in ("first", "batch", "urgent")))
    ended = [delta.id for step in running.steps for delta in step if delta.last]
    assert ended == ["first", "urgent", "batch"]


async def test_tokens_that_come_fast_are_told_together_and_ends_at_once(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    running = engines()
    await running.load(tiny_model, max_sequences=2)
    await running.run(greedy("slow", "Hello", 200))
    deltas = running.deltas["slow"]
    # The first is told alone; of a tiny model several tokens come within the time for which they are kept.
    assert [len(delta.token_ids) for delta in deltas[:1]] == [1]
    assert len(running.steps) < len(running.tokens("slow")) == 200
    assert deltas[-1].last
