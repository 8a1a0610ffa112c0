"""What callers may send, and which field a refusal names."""

import json
from typing import Any

import pytest

from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openai_requests import ChatRequest, CompletionRequest
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import GenerateRequest

USER = {"role": "user", "content": "Hello!"}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> GenerateRequest:
    body = {"model": "m", "messages": [USER], **fields}
    return decode(json.dumps(body).encode(), ChatRequest).to_generate("id")


def completion(**fields: Any) -> GenerateRequest:
    return decode(json.dumps({"model": "m", "prompt": "a", **fields}).encode(), CompletionRequest).to_generate("id")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [USER, {"role": "tool", "content": "4"}]}, "messages[1].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
        ),
        ({"model": ""}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"n": 2}, "n"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_refused_chat_request_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)

    assert refused.value.param == param
    assert param in refused.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, "b"]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 2}, "logprobs"),
    ],
)
def test_a_refused_completion_request_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        completion(**fields)

    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"'])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(body, ChatRequest)


def test_sampling_parameters_reach_the_replica() -> None:
    sampling = chat(
        temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, seed=7, stop="END", presence_penalty=1, frequency_penalty=-1
    ).sampling

    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 5, 0.1)
    assert (sampling.seed, sampling.stop) == (7, ("END",))
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)


def test_max_completion_tokens_is_the_newer_name_of_max_tokens() -> None:
    assert chat(max_tokens=5).sampling.max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=6).sampling.max_tokens == 6


def test_content_parts_become_one_text() -> None:
    parts = [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "world"}]

    messages = chat(messages=[{"role": "user", "content": parts}]).messages

    assert messages is not None
    assert messages[0].content == "Hello, world"


def test_the_developer_role_is_the_system_role() -> None:
    messages = chat(messages=[{"role": "developer", "content": "Be brief."}, USER]).messages

    assert messages is not None
    assert messages[0].role == "system"


def test_a_tool_conversation_is_carried_whole() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    request = chat(
        tools=[WEATHER],
        messages=[
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
    )

    assert request.parse_tool_calls
    assert request.messages is not None
    assert request.messages[1].tool_calls[0].arguments == '{"city": "Rome"}'
    assert request.messages[2].tool_call_id == "c1"


def test_tool_choice_none_hides_the_tools_from_the_model() -> None:
    request = chat(tools=[WEATHER], tool_choice="none")

    assert request.tools == ()
    assert not request.parse_tool_calls


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2, 3]]])
def test_a_prompt_may_be_token_ids(prompt: list[Any]) -> None:
    assert completion(prompt=prompt).token_ids == (1, 2, 3)


def test_a_list_of_one_prompt_is_that_prompt() -> None:
    assert completion(prompt=["once"]).prompt == "once"


def test_text_completions_make_sixteen_tokens_unless_told_otherwise() -> None:
    assert completion().sampling.max_tokens == 16
    assert completion(max_tokens=3).sampling.max_tokens == 3
