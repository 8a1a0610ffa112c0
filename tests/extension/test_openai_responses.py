"""The bodies clients read, checked against the types of the openai package."""

import json
from typing import Any

from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from jupyter_xinfer.protocol.openai_responses import ChatResponses, CompletionResponses, error_body
from xinfer_runtime.errors import ModelNotFound, Overloaded
from xinfer_runtime.messages import Delta, FinishReason, ToolCall, Usage

LAST = Delta("id", "lo", (2,), FinishReason.STOP, Usage(5, 2, 1))
CALL = ToolCall(id="c1", name="get_weather", arguments="{}")


def test_a_whole_chat_answer_has_text_reason_and_usage() -> None:
    answer = ChatCompletion.model_validate_json(ChatResponses("id", "m").whole(LAST))

    assert answer.choices[0].message.content == "lo"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 2, 7)


def test_a_whole_answer_of_tool_calls_has_no_content() -> None:
    delta = Delta("id", "", (1,), FinishReason.TOOL_CALLS, Usage(1, 1), (CALL,))

    message = ChatCompletion.model_validate_json(ChatResponses("id", "m").whole(delta)).choices[0].message

    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0].id == "c1"


def _chunks(responses: ChatResponses, *deltas: Delta) -> list[dict[str, Any]]:
    return [json.loads(chunk) for delta in deltas for chunk in responses.chunks(delta)]


def test_the_first_chunk_of_a_stream_carries_the_role_and_no_other_does() -> None:
    chunks = _chunks(ChatResponses("id", "m"), Delta("id", "Hel", (1,)), LAST)

    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks] == ["assistant", None]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for() -> None:
    chunks = _chunks(ChatResponses("id", "m", include_usage=True), Delta("id", "Hel", (1,)), LAST)

    assert [chunk["usage"] is not None for chunk in chunks] == [False, False, True]
    assert chunks[-1]["choices"] == []
    assert ChatCompletionChunk.model_validate(chunks[-1]).usage is not None


def test_usage_is_not_mentioned_when_nobody_asked() -> None:
    assert all("usage" not in chunk for chunk in _chunks(ChatResponses("id", "m"), LAST))


def test_a_step_without_visible_text_makes_no_chunk() -> None:
    assert ChatResponses("id", "m").chunks(Delta("id", "", (7,))) == []


def test_streamed_tool_calls_are_numbered_over_the_whole_stream() -> None:
    responses = ChatResponses("id", "m")

    chunks = _chunks(responses, Delta("id", tool_calls=(CALL,)), Delta("id", tool_calls=(CALL, CALL)))

    assert [[c["index"] for c in chunk["choices"][0]["delta"]["tool_calls"]] for chunk in chunks] == [[0], [1, 2]]


def test_a_text_completion_validates() -> None:
    answer = Completion.model_validate_json(CompletionResponses("id", "m").whole(LAST))

    assert answer.choices[0].text == "lo"


def test_an_error_has_openais_object_and_xinferences_detail() -> None:
    body = error_body(ModelNotFound("No model 'x'.", param="model"))

    assert body["error"] == {
        "message": "No model 'x'.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert body["detail"] == "No model 'x'."


def test_overload_has_openais_error_type() -> None:
    assert error_body(Overloaded("busy"))["error"]["type"] == "rate_limit_error"
