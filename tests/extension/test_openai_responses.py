"""The bodies clients read, checked against the types of the openai package."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from jupyter_xinfer.protocol.openai_responses import ChatResponses, CompletionResponses, Responses, error_body
from xinfer_runtime.errors import ModelNotFound, Overloaded
from xinfer_runtime.messages import Delta, FinishReason, TokenLogprob, ToolCall, Usage

LAST = Delta("id", "lo", (2,), FinishReason.STOP, Usage(5, 2, 1))
CALL = ToolCall(id="c1", name="get_weather", arguments="{}")


def test_a_whole_chat_answer_has_text_reason_and_usage() -> None:
    answer = ChatCompletion.model_validate_json(ChatResponses("id", "m").whole([LAST]))

    assert answer.choices[0].message.content == "lo"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 2, 7)


def test_a_whole_answer_of_tool_calls_has_no_content() -> None:
    delta = Delta("id", "", (1,), FinishReason.TOOL_CALLS, Usage(1, 1), (CALL,))

    message = ChatCompletion.model_validate_json(ChatResponses("id", "m").whole([delta])).choices[0].message

    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0].id == "c1"


def _chunks(responses: Responses, *deltas: Delta) -> list[dict[str, Any]]:
    return [
        json.loads(chunk if isinstance(chunk, bytes) else chunk[1])
        for delta in deltas
        for chunk in responses.chunks(0, delta)
    ]


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
    assert ChatResponses("id", "m").chunks(0, Delta("id", "", (7,))) == []


def test_streamed_tool_calls_are_numbered_over_the_whole_stream() -> None:
    responses = ChatResponses("id", "m")

    chunks = _chunks(responses, Delta("id", tool_calls=(CALL,)), Delta("id", tool_calls=(CALL, CALL)))

    assert [[c["index"] for c in chunk["choices"][0]["delta"]["tool_calls"]] for chunk in chunks] == [[0], [1, 2]]


def test_a_text_completion_validates() -> None:
    answer = Completion.model_validate_json(CompletionResponses("id", "m").whole([LAST]))

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


# From OpenAI's published schema, without its prose, and with `nullable` written as JSON Schema has it.
SPECIFICATION = json.loads(Path(__file__).with_name("openai_answers.json").read_text())
TOKEN = TokenLogprob("é".encode()[:1], -0.5, ((b"lo", -0.25), (b"\xc3", -0.5)))
FULL = Delta("id", "lo", (2,), FinishReason.STOP, Usage(5, 2, 1), (CALL,), None, (TOKEN,), "Hm.")


def conforms(body: Any, schema: str) -> None:
    jsonschema.validate(body, {**SPECIFICATION, "$ref": f"#/components/schemas/{schema}"})


@pytest.mark.parametrize("delta", [LAST, FULL])
def test_answers_conform_to_openais_published_schema(delta: Delta) -> None:
    chat = ChatResponses("id", "m", choices=2, choices_per_prompt=2, logprobs=True, include_usage=True)

    conforms(json.loads(chat.whole([delta, delta])), "CreateChatCompletionResponse")
    for chunk in _chunks(chat, Delta("id", "Hel", (1,)), delta):
        # The schema's description of `usage` has it null on all chunks but the last; its type forgets that.
        if chunk["usage"] is None:
            del chunk["usage"]
        conforms(chunk, "CreateChatCompletionStreamResponse")
    conforms(
        json.loads(CompletionResponses("id", "m", logprobs=True).whole([delta])),
        "CreateCompletionResponse",
    )


def test_a_prompt_counts_once_and_the_completions_of_all_choices_add_up() -> None:
    usage = json.loads(ChatResponses("id", "m", choices=2, choices_per_prompt=2).whole([LAST, LAST]))["usage"]

    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (5, 4, 9)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 1}


def test_tokens_of_thoughts_are_told_and_add_up() -> None:
    thinking = Delta("id", "lo", (1, 2, 3), FinishReason.STOP, Usage(5, 3, reasoning_tokens=2))
    usage = json.loads(ChatResponses("id", "m", choices=2, choices_per_prompt=2).whole([thinking, thinking]))["usage"]

    assert usage["completion_tokens_details"] == {"reasoning_tokens": 4}


def test_usage_of_a_stream_waits_for_the_last_choice() -> None:
    responses = ChatResponses("id", "m", choices=2, choices_per_prompt=2, include_usage=True)

    assert len(responses.chunks(1, LAST)) == 1
    assert len(responses.chunks(0, LAST)) == 2


def test_the_choices_of_a_stream_have_their_own_index_role_and_calls() -> None:
    responses = ChatResponses("id", "m", choices=2)
    chunks = [responses.chunks(i, Delta("id", tool_calls=(CALL,)))[0] for i in (1, 0, 1)]
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks if isinstance(chunk, bytes)]

    assert [choice["index"] for choice in choices] == [1, 0, 1]
    assert [choice["delta"].get("role") for choice in choices] == ["assistant", "assistant", None]
    assert [choice["delta"]["tool_calls"][0]["index"] for choice in choices] == [0, 0, 1]


def test_chat_log_probabilities_carry_the_bytes_of_parts_of_characters() -> None:
    [entry] = json.loads(ChatResponses("id", "m", logprobs=True).whole([FULL]))["choices"][0]["logprobs"]["content"]

    assert entry["bytes"] == [0xC3]
    assert entry["token"] == "\ufffd"
    assert [top["logprob"] for top in entry["top_logprobs"]] == [-0.25, -0.5]


def test_offsets_of_streamed_log_probabilities_go_on() -> None:
    responses = CompletionResponses("id", "m", logprobs=True)
    word = Delta("id", "Hi", (1,), logprobs=(TokenLogprob(b"Hi", -0.5),))

    offsets = [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in _chunks(responses, word, word)]

    assert offsets == [[0], [2]]


def test_an_echo_goes_before_the_text_once() -> None:
    chunks = _chunks(CompletionResponses("id", "m", echoes=["Say: "]), Delta("id", "Hel", (1,)), LAST)

    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Say: Hel", "lo"]


def test_thoughts_are_not_content() -> None:
    message = json.loads(ChatResponses("id", "m").whole([FULL]))["choices"][0]["message"]

    assert (message["reasoning_content"], message["content"]) == ("Hm.", "lo")


def test_forced_calls_are_read_from_the_lines_of_the_output() -> None:
    text = '{"name": "f", "arguments": {"x": "}"}}\n{"name": "g", "arguments": {}}'
    deltas = [*(Delta("id", letter, (1,)) for letter in text), Delta("id", "", (2,), FinishReason.STOP, Usage(1, 1))]

    chunks = _chunks(ChatResponses("id", "m", forced_calls=True), *deltas)

    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [(call["index"], call["function"]["name"]) for call in calls] == [(0, "f"), (1, "g")]
    assert calls[0]["function"]["arguments"] == '{"x": "}"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any(chunk["choices"][0]["delta"].get("content") for chunk in chunks)


def test_a_forced_call_that_was_cut_off_stays_text() -> None:
    cut = Delta("id", '{"name": "f", "argum', (1,), FinishReason.LENGTH, Usage(1, 1))

    choice = json.loads(ChatResponses("id", "m", forced_calls=True).whole([cut]))["choices"][0]

    assert choice["message"]["content"] == '{"name": "f", "argum'
    assert choice["finish_reason"] == "length"
