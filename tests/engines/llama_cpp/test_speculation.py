"""Tokens are guessed, and nobody can tell from what comes out. Models in full precision: see the docs on rounding."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xinfer_runtime.engines.llama_cpp.context import DECODED, Chunk, Context
from xinfer_runtime.engines.llama_cpp.draft_control import DraftControl
from xinfer_runtime.engines.llama_cpp.loading import load_model
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Constraint, ConstraintKind, FinishReason, GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec

RunningEngine = Any
REPEATED = "one two three four, one two three four, one two three four, one two"

TWO_LETTERS = {97: 40.0, 98: 40.0}
"""Bias for an output that repeats itself, so that some guesses come true."""


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess at every step, whether it pays or not: what comes out must be the same."""

    def all_of_them(_: DraftControl, rates: list[float], most: list[int], rows: int, room: int) -> list[int]:
        lengths = []
        for count in most:
            lengths.append(min(count, room))
            room -= lengths[-1]
        return lengths

    monkeypatch.setattr(DraftControl, "lengths", all_of_them)
    monkeypatch.setattr(DraftControl, "rests", lambda _: False)


@pytest.fixture
async def pair(engines: Callable[[], RunningEngine], tiny_model: Path, eager: None) -> tuple[RunningEngine, ...]:
    """An engine that guesses, and one that does not."""
    guessing, plain = engines(), engines()
    assert (await guessing.load(tiny_model, {"speculation": "prompt-lookup"}, max_sequences=8)).speculation
    assert not (await plain.load(tiny_model, max_sequences=8)).speculation
    return guessing, plain


async def same(pair: tuple[RunningEngine, ...], name: str, prompt: str, **fields: Any) -> tuple[Any, Any]:
    """Run the request on both, compare what comes, and return both last deltas."""
    sampling = SamplingParams(**{"max_tokens": 60, "ignore_eos": True, **fields.pop("sampling", {})})
    request = GenerateRequest(id=name, prompt=prompt, sampling=sampling, **fields)
    ours, theirs = await asyncio.gather(*(engine.run(request) for engine in pair))
    assert pair[0].tokens(name) == pair[1].tokens(name)
    assert pair[0].text(name) == pair[1].text(name)
    assert ours[-1].finish_reason == theirs[-1].finish_reason
    assert ours[-1].usage.completion_tokens == theirs[-1].usage.completion_tokens
    return ours, theirs


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 0.8, "seed": 5, "top_p": 0.9},
        {"temperature": 0.2, "seed": 6, "repetition_penalty": 1.2, "presence_penalty": 0.5},
        {"temperature": 0, "logit_bias": TWO_LETTERS},
        {"temperature": 0.9, "seed": 7, "logit_bias": TWO_LETTERS, "logprobs": 1},
        {"temperature": 0.9, "seed": 8, "logit_bias": TWO_LETTERS, "frequency_penalty": 0.1},
        {"temperature": 0, "max_tokens": 1},
        {"temperature": 0, "max_tokens": 2},
    ],
)
async def test_the_same_tokens_come(pair: tuple[RunningEngine, ...], sampling: dict[str, Any]) -> None:
    for turn in range(3):
        await same(pair, f"r{turn}", f"{turn} {REPEATED}", sampling=sampling)
    assert len(pair[0].tokens("r0")) == sampling.get("max_tokens", 60)


async def test_guesses_come_true_in_fewer_steps(pair: tuple[RunningEngine, ...]) -> None:
    ours, theirs = await same(
        pair, "loop", REPEATED, sampling={"temperature": 0, "max_tokens": 200, "logit_bias": TWO_LETTERS}
    )
    stats = pair[0].engine.stats()
    assert 0 < stats.accepted_tokens <= stats.drafted_tokens
    assert len(ours) < len(theirs) == 200
    assert len(ours) + stats.accepted_tokens == 200
    assert (stats.running, stats.kv_used) == (0, 0)
    assert pair[1].engine.stats().drafted_tokens == 0


async def test_log_probabilities_belong_to_their_tokens(pair: tuple[RunningEngine, ...]) -> None:
    ours, theirs = await same(
        pair, "judged", REPEATED, sampling={"temperature": 0, "logprobs": 2, "logit_bias": TWO_LETTERS}
    )
    mine, others = ([each for delta in deltas for each in delta.logprobs] for deltas in (ours, theirs))
    assert [each.token for each in mine] == [each.token for each in others]
    assert [each.logprob for each in mine] == pytest.approx([each.logprob for each in others], abs=1e-3)


async def test_a_stop_string_among_guessed_tokens_ends_there(pair: tuple[RunningEngine, ...]) -> None:
    await same(pair, "whole", REPEATED, sampling={"temperature": 0, "logit_bias": TWO_LETTERS})
    text = pair[0].text("whole")
    for start in (20, 31, 42):
        sampling = {"temperature": 0, "logit_bias": TWO_LETTERS, "stop": (text[start:][:3],)}
        ours, _ = await same(pair, f"stop {start}", REPEATED, sampling=sampling)
        assert ours[-1].finish_reason is FinishReason.STOP


async def test_a_schema_binds_guessed_tokens_too(pair: tuple[RunningEngine, ...]) -> None:
    schema = {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 12, "maxItems": 12}
    prompt = '["red","red","green","red","red","green","red'
    constraint = Constraint(ConstraintKind.JSON_SCHEMA, schema)
    await same(pair, "bound", prompt, constraint=constraint, sampling={"temperature": 0, "max_tokens": 200})
    await same(pair, "drawn", prompt, constraint=constraint, sampling={"seed": 3, "max_tokens": 200})
    assert pair[0].engine.stats().accepted_tokens > 0


async def test_the_cache_holds_what_came_and_not_what_was_guessed(pair: tuple[RunningEngine, ...]) -> None:
    prompt = REPEATED
    for turn in range(4):
        await same(pair, f"turn {turn}", prompt, sampling={"temperature": 0, "max_tokens": 25})
        tokens = (*prompt.encode(), *pair[1].tokens(f"turn {turn}"))
        sampling = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
        request = GenerateRequest(id=f"next {turn}", token_ids=tokens, sampling=sampling)
        await asyncio.gather(*(engine.run(request) for engine in pair))
        assert pair[0].tokens(request.id) == pair[1].tokens(request.id)
        prompt += " and one two"


async def test_a_stream_goes_on_where_it_was_cut(pair: tuple[RunningEngine, ...]) -> None:
    sampling = {"temperature": 0.7, "seed": 9, "max_tokens": 60, "logit_bias": TWO_LETTERS}
    await same(pair, "whole", REPEATED, sampling=sampling)
    whole = pair[1].tokens("whole")
    for cut in (1, 17, 40):
        await same(pair, f"cut {cut}", REPEATED, sampling=sampling, resume=tuple(whole[:cut]))
        assert pair[0].tokens(f"cut {cut}") == whole[cut:]


async def test_a_crowd_with_aborts_in_too_few_cells_ends_as_each_alone(
    engines: Callable[[], RunningEngine], tiny_model: Path, eager: None
) -> None:
    guessing, plain = engines(), engines()
    await guessing.load(tiny_model, {"speculation": "prompt-lookup", "kv_cells": 400}, max_sequences=6)
    await plain.load(tiny_model, max_sequences=1)
    requests = [
        GenerateRequest(
            id=f"r{number}",
            prompt=f"{number} {REPEATED}",
            sampling=SamplingParams(
                temperature=0, max_tokens=50 + number, ignore_eos=True, logit_bias=TWO_LETTERS if number % 2 else {}
            ),
        )
        for number in range(12)
    ]
    for request in requests:
        guessing.submit(request)
    await guessing.until(lambda: len(guessing.tokens("r0")) > 5)
    guessing.engine.abort("r1")
    guessing.engine.abort("r8")
    for request in requests:
        if request.id not in ("r1", "r8"):
            await guessing.finish(request.id)
            await plain.run(request)
            assert guessing.text(request.id) == plain.text(request.id)
    stats = guessing.engine.stats()
    assert stats.accepted_tokens > 0
    assert (stats.running, stats.waiting, stats.kv_used) == (0, 0, 0)


def test_several_rows_of_one_sequence_are_those_of_one_at_a_time(tiny_model: Path) -> None:
    spec = ModelSpec(uid="m", name="m", path=str(tiny_model), max_sequences=2)
    model = load_model(spec, Options(speculation="prompt-lookup", threads=1), lambda *_: True)
    try:
        context: Context = model.context
        assert context.decode([Chunk(0, 0, [65, 66, 67, 68], 3)]) == DECODED
        together = context.logits(3).copy()
        assert context.decode([Chunk(1, 0, [65, 66], 1)]) == DECODED
        rows = [context.logits(1)[0].copy()]
        for position, token in ((2, 67), (3, 68)):
            assert context.decode([Chunk(1, position, [token], 1)]) == DECODED
            rows.append(context.logits(1)[0].copy())
        for one, other in zip(together, rows, strict=True):
            assert one == pytest.approx(other, abs=1e-2)
    finally:
        model.free()


@pytest.mark.parametrize("options", [{"speculation": "lookahead"}, {"draft_tokens": 0}])
async def test_what_does_not_exist_is_refused(
    engines: Callable[[], RunningEngine], tiny_model: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="engine_options"):
        await engines().load(tiny_model, options)
