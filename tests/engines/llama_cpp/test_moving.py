"""A running sequence leaves one engine and goes on in another as if nothing had happened."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from xinfer_runtime.engines.sequence_state import SequenceState, StateReader
from xinfer_runtime.messages import (
    ChatMessage,
    Constraint,
    ConstraintKind,
    DryParams,
    FinishReason,
    GenerateRequest,
    MirostatParams,
    SamplingParams,
)

RunningEngine = Any

PROMPT = "A text that is long enough for its cells to be worth more than what it costs to compute them again. " * 2
SHARED = {"prefix_cache": True, "kv_cells": 2048}
"""Options for a cache that all sequences share."""


def request(name: str, constraint: Constraint | None = None, **sampling: Any) -> GenerateRequest:
    params = SamplingParams(**{"temperature": 0, "max_tokens": 200, "ignore_eos": True, **sampling})
    return GenerateRequest(id=name, prompt=PROMPT, sampling=params, constraint=constraint)


async def leave(running: RunningEngine, asked: GenerateRequest, after: int = 20) -> SequenceState | None:
    """What the engine gives of the request after so many tokens; once more if it was at its end before it was asked."""
    for _ in range(50):
        running.submit(asked)
        await running.until(lambda: len(running.tokens(asked.id)) >= after)
        state: SequenceState | None = await running.engine.export_state(asked.id)
        if not running.deltas[asked.id][-1].last:
            return state
    pytest.fail("it always ended before it could leave")


def put_together(pieces: Iterable[bytes]) -> SequenceState:
    reader = StateReader()
    for piece in pieces:
        reader.take(piece)
    return reader.state()


def sent(state: SequenceState) -> SequenceState:
    """The state as it arrives elsewhere."""
    return put_together(state.pieces())


async def go_on(running: RunningEngine, asked: GenerateRequest, state: SequenceState | None, tokens: list[int]) -> None:
    running.submit(replace(asked, resume=tuple(tokens)), state)
    await running.finish(asked.id)


@pytest.fixture(params=["split", "shared"])
async def two(request: pytest.FixtureRequest, engines: Callable[[], RunningEngine], tiny_model: Path) -> Any:
    """Two engines with the same model and settings."""
    pair = (engines(), engines())
    for each in pair:
        await each.load(tiny_model, SHARED if request.param == "shared" else {}, max_sequences=4)
    return pair


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 1.0, "seed": 7, "top_p": 0.9},
        {"temperature": 0.8, "seed": 3, "repetition_penalty": 1.3, "presence_penalty": 0.5},
        {"temperature": 1.0, "seed": 5, "mirostat": MirostatParams(mode=2)},
        {"dry": DryParams(multiplier=0.8)},
    ],
    ids=["greedy", "seeded", "penalties", "mirostat", "dry"],
)
async def test_a_sequence_that_moves_says_what_it_would_have_said(two: Any, sampling: dict[str, Any]) -> None:
    here, there = two
    whole = request("whole", **sampling)
    await here.run(whole)

    moves = replace(whole, id="moves")
    state = await leave(here, moves)
    assert state is not None
    begun = here.tokens("moves")
    mu = here.deltas["moves"][-1].mirostat_mu
    await go_on(there, replace(moves, resume_mu=mu), sent(state), begun)

    assert begun + there.tokens("moves") == here.tokens("whole")
    assert here.text("moves") + there.text("moves") == here.text("whole")
    # Nothing was computed again but the last token, whose logits are needed.
    usage = there.deltas["moves"][-1].usage
    assert usage.cached_tokens == usage.prompt_tokens
    assert there.engine.stats().restored_tokens == len(state.tokens) // 4 >= usage.prompt_tokens
    assert here.engine.stats().running == 0


async def test_a_schema_goes_on_being_kept(two: Any) -> None:
    here, there = two
    schema = {"type": "object", "properties": {"a": {"type": "string", "minLength": 50}}, "required": ["a"]}
    whole = request("whole", Constraint(ConstraintKind.JSON_SCHEMA, schema), max_tokens=100)
    await here.run(whole)
    moves = replace(whole, id="moves")
    state = await leave(here, moves)
    assert state is not None
    begun = here.tokens("moves")
    await go_on(there, moves, sent(state), begun)
    assert begun + there.tokens("moves") == here.tokens("whole")


async def test_a_tool_call_that_is_half_said_goes_on(two: Any) -> None:
    here, there = two
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    grammar = 'root ::= "<tool_call>{\\"name\\": \\"add\\", \\"arguments\\": {\\"a\\": " [1-9]{60} "}}</tool_call>"'
    whole = GenerateRequest(
        id="whole",
        messages=(ChatMessage(role="user", content=PROMPT),),
        tools=(tool,),
        parse_tool_calls=True,
        constraint=Constraint(ConstraintKind.GRAMMAR, grammar),
        sampling=SamplingParams(temperature=1.0, seed=11, max_tokens=200),
    )
    await here.run(whole)
    expected = [call for delta in here.deltas["whole"] for call in delta.tool_calls]
    assert [call.name for call in expected] == ["add"]

    moves = replace(whole, id="moves")
    state = await leave(here, moves, after=50)
    assert state is not None
    begun = here.tokens("moves")
    await go_on(there, moves, sent(state), begun)
    assert begun + there.tokens("moves") == here.tokens("whole")
    calls = [call for part in (here, there) for delta in part.deltas["moves"] for call in delta.tool_calls]
    assert [(call.name, call.arguments) for call in calls] == [(call.name, call.arguments) for call in expected]
    assert there.deltas["moves"][-1].finish_reason is FinishReason.TOOL_CALLS
    assert there.engine.stats().restored_tokens == len(state.tokens) // 4


async def test_sequences_move_beside_others(two: Any) -> None:
    """Into a cache that others use, and out of one, several at a time."""
    here, there = two
    names = ["one", "two", "three"]
    prompts = {name: replace(request(name), prompt=f"{name}: {PROMPT}") for name in names}
    for name in names:
        await here.run(replace(prompts[name], id=f"{name} alone"))
    there.submit(replace(request("stays", max_tokens=200), prompt="Another text. " * 10))
    states = await asyncio.gather(*(leave(here, prompts[name]) for name in names))
    begun = {name: here.tokens(name) for name in names}
    await asyncio.gather(
        *(go_on(there, prompts[name], state, begun[name]) for name, state in zip(names, states, strict=True))
    )
    for name in names:
        assert begun[name] + there.tokens(name) == here.tokens(f"{name} alone")
    await there.finish("stays")
    await here.run(replace(request("stays alone", max_tokens=200), prompt="Another text. " * 10))
    assert there.tokens("stays") == here.tokens("stays alone")


@pytest.mark.parametrize("what", ["identity", "adapter", "tokens", "cells", "cut cells"])
async def test_a_state_that_does_not_fit_is_computed_again(two: Any, what: str) -> None:
    here, there = two
    whole = request("whole")
    await here.run(whole)
    moves = replace(whole, id="moves")
    state = await leave(here, moves)
    assert state is not None
    broken = {
        "identity": {"identity": "0" * 64},
        "adapter": {"adapter": "other"},
        "tokens": {"tokens": memoryview(bytes(len(state.tokens)))},
        "cells": {"cells": memoryview(bytes(len(state.cells)))},
        "cut cells": {"cells": state.cells[: len(state.cells) // 2]},
    }[what]
    begun = here.tokens("moves")
    await go_on(there, moves, replace(state, **broken), begun)
    assert begun + there.tokens("moves") == here.tokens("whole")
    assert there.engine.stats().restored_tokens == 0


async def test_a_launch_of_its_own_has_an_identity_of_its_own(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    first, second = engines(), engines()
    infos = [await first.load(tiny_model, created=1.0), await second.load(tiny_model, created=2.0)]
    assert all(len(info.state_identity) == 64 for info in infos)
    assert infos[0].state_identity != infos[1].state_identity


async def test_what_is_short_or_has_ended_has_no_state(two: Any) -> None:
    here, _ = two
    assert await here.engine.export_state("nobody") is None
    short = replace(request("short", max_tokens=10), prompt="Hi")
    here.submit(short)
    await here.until(lambda: bool(here.tokens("short")))
    assert await here.engine.export_state("short") is None
    said = len(here.tokens("short"))
    await here.run(request("after"))
    assert len(here.tokens("short")) == said
    assert await here.engine.export_state("after") is None


async def test_a_request_that_leaves_before_it_was_prepared_leaves_nothing_behind(two: Any) -> None:
    here, _ = two
    here.submit(request("early"))
    await here.engine.export_state("early")
    said = len(here.tokens("early"))
    await here.run(request("after"))
    assert (here.engine.stats().running, here.engine.stats().waiting) == (0, 0)
    assert len(here.tokens("early")) == said


@pytest.mark.parametrize("pieces", [[b"nonsense"], [b"\x94\xa0\xa0\x04\x04"], [b"\x94\xa0\xa0\x04\x04", bytes(9)], []])
def test_broken_pieces_are_told(pieces: list[bytes]) -> None:
    with pytest.raises(ValueError, match="state"):
        put_together(pieces)


def test_a_state_that_is_too_large_is_refused_by_its_head() -> None:
    with pytest.raises(ValueError, match="a state of"):
        StateReader().take(b"\x94\xa0\xa0\x04\xce\x7f\xff\xff\xff")
