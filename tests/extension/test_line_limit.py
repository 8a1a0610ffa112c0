"""No line of a stream is longer than what clients can read, and nothing gets lost for it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_xinfer.protocol.line_limit import MAX_LINE, in_lines
from jupyter_xinfer.protocol.openai_responses import ChatResponses, CompletionResponses, Responses
from xinfer_runtime.messages import Delta, FinishReason, TokenLogprob, ToolCall, Usage

ENDING = {"finish_reason": FinishReason.TOOL_CALLS, "usage": Usage(1, 2)}
LOGPROBS = tuple(TokenLogprob(b"\xff" * 40, -1.23456789012345, ((b"\x00" * 40, -9.87654321),) * 20) for _ in range(300))
CALLS = (
    ToolCall(id="a", name="write", arguments=json.dumps({"text": "\x00" * 20_000})),
    ToolCall(id="b", name="add", arguments="{}"),
    ToolCall(id="c", name="write", arguments=json.dumps({"text": "x" * 100_000})),
)


def lines(responses: Responses, delta: Delta) -> list[dict[str, Any]]:
    chunks = responses.chunks(0, delta)
    assert all(len(chunk) + len("data: \n\n") < MAX_LINE for chunk in chunks)
    return [json.loads(chunk if isinstance(chunk, bytes) else chunk[1]) for chunk in chunks]


@pytest.mark.parametrize("text", ["x" * 200_000, "\x00" * 50_000, "\u597d" * 50_000, "\U0001f600" * 20_000])
def test_long_texts_and_thoughts_are_cut(text: str) -> None:
    chunks = lines(ChatResponses("id", "m"), Delta("id", text, reasoning=text[::-1], **ENDING))  # type: ignore[arg-type]

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == text
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == text[::-1]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["tool_calls"]


def test_long_arguments_are_assembled_as_clients_do() -> None:
    chunks = lines(ChatResponses("id", "m"), Delta("id", "", tool_calls=CALLS, **ENDING))  # type: ignore[arg-type]

    assembled: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for call in chunk["choices"][0]["delta"].get("tool_calls", ()):
            known = assembled.setdefault(call["index"], {"arguments": ""})
            known.update({name: call[name] for name in ("id", "type") if name in call})
            known["arguments"] += call["function"]["arguments"]
    assert [assembled[index]["arguments"] for index in range(3)] == [call.arguments for call in CALLS]
    assert [assembled[index]["id"] for index in range(3)] == ["a", "b", "c"]


def test_log_probabilities_of_many_tokens_are_spread() -> None:
    chunks = lines(ChatResponses("id", "m", logprobs=True), Delta("id", "x", logprobs=LOGPROBS))

    content = [entry for chunk in chunks for entry in chunk["choices"][0]["logprobs"]["content"]]
    assert len(content) == len(LOGPROBS)
    completions = lines(CompletionResponses("id", "m", logprobs=True), Delta("id", "x", logprobs=LOGPROBS))
    assert sum(len(chunk["choices"][0]["logprobs"]["tokens"]) for chunk in completions) == len(LOGPROBS)


def test_a_long_echo_is_cut_too() -> None:
    chunks = lines(CompletionResponses("id", "m", echoes=["p" * 100_000]), Delta("id", "answer"))

    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "p" * 100_000 + "answer"


@given(st.text(max_size=30), st.text(max_size=30))
def test_what_is_small_stays_one(text: str, reasoning: str) -> None:
    delta = Delta("id", text, reasoning=reasoning, finish_reason=FinishReason.STOP)

    assert in_lines(delta) == [delta]
