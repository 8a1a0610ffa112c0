"""The Messages API: what a request means, and the events and bodies, checked against the anthropic package's types."""

import json
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from jupyter_xinfer.protocol.anthropic_events import MessagesEncoder, anthropic_error_body
from jupyter_xinfer.protocol.anthropic_requests import MessagesRequest
from jupyter_xinfer.protocol.decoding import decode
from xinfer_runtime.errors import InvalidRequest, Overloaded
from xinfer_runtime.messages import Delta, FinishReason, GenerateRequest, ToolCall, Usage

CALL = ToolCall(id="c1", name="weather", arguments='{"city": "Rome"}')
LAST = Delta("id", "", (2,), FinishReason.TOOL_CALLS, Usage(5, 2, 1), (CALL,))
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
DEEP = json.loads('{"items": ' * 70 + "{}" + "}" * 70)
TOOL = {"name": "weather", "input_schema": {"type": "object"}}


def generate(**fields: Any) -> GenerateRequest:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return decode(json.dumps(body).encode(), MessagesRequest).as_chat().to_generate("id")


def test_every_event_conforms_to_the_clients_types_and_blocks_are_numbered() -> None:
    subject = MessagesEncoder("msg_1", "m", forced_calls=False)
    deltas = [Delta("id", reasoning="Hm."), Delta("id", "Hel"), Delta("id", "lo"), LAST]
    events = [json.loads(chunk[1]) for delta in deltas for chunk in subject.chunks(0, delta)]
    for event in events:
        EVENT.validate_python(event)

    starts = [(e["index"], e["content_block"]["type"]) for e in events if e["type"] == "content_block_start"]
    stops = [e["index"] for e in events if e["type"] == "content_block_stop"]
    assert starts == [(0, "thinking"), (1, "text"), (2, "tool_use")]
    assert stops == [0, 1, 2]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("last", "reason", "sequence"),
    [
        (Delta("id", "x", (1,), FinishReason.STOP, Usage(5, 2)), "end_turn", None),
        (Delta("id", "x", (1,), FinishReason.STOP, Usage(5, 2), stop_string="END"), "stop_sequence", "END"),
        (Delta("id", "x", (1,), FinishReason.LENGTH, Usage(5, 2)), "max_tokens", None),
        (LAST, "tool_use", None),
    ],
)
def test_the_reason_of_the_end_is_told_whole_and_streamed(last: Delta, reason: str, sequence: str | None) -> None:
    whole = json.loads(MessagesEncoder("msg_1", "m", forced_calls=False).whole([last]))
    chunks = MessagesEncoder("msg_1", "m", forced_calls=False).chunks(0, last)
    streamed = json.loads(chunks[-2][1])["delta"]

    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    assert streamed == {"stop_reason": reason, "stop_sequence": sequence}


def test_a_whole_message_conforms_to_the_clients_types() -> None:
    whole = Delta("id", "Hello", (1, 2), FinishReason.TOOL_CALLS, Usage(5, 2, 1), (CALL,), None, (), "Hm.")
    body = json.loads(MessagesEncoder("msg_1", "m", forced_calls=False).whole([whole]))
    message = Message.model_validate(body)

    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (4, 1)


def test_results_of_tools_are_messages_of_their_own() -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
                {"type": "text", "text": "So?"},
            ],
        },
    ]

    found = generate(messages=messages, system=[{"type": "text", "text": "Be brief."}], tools=[TOOL]).messages

    assert found is not None
    assert [message.role for message in found] == ["system", "user", "assistant", "tool", "user"]
    assert found[2].tool_calls[0].arguments == '{"x": 1}'
    assert found[2].reasoning == "Hm."
    assert (found[3].content, found[3].tool_call_id) == ("sunny", "c1")


@pytest.mark.parametrize("strict", [True, False])
def test_a_strict_tool_reaches_the_replica_as_one(strict: bool) -> None:
    [tool] = generate(tools=[{**TOOL, "strict": strict}]).tools

    assert tool["function"].get("strict", False) is strict


def test_a_budget_of_thoughts_reaches_the_replica() -> None:
    assert generate(thinking={"type": "enabled", "budget_tokens": 5}).thinking_budget == 5
    assert generate(thinking={"type": "enabled"}).thinking_budget is None


def test_thoughts_may_be_left_out() -> None:
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    thinking = {"type": "adaptive", "display": "omitted"}
    body = decode(json.dumps({**asked, "thinking": thinking}).encode(), MessagesRequest)
    subject = MessagesEncoder("msg_1", "m", forced_calls=False, shows_thoughts=body.shows_thoughts)
    last = Delta("id", "Hello", (2,), FinishReason.STOP, Usage(5, 2), reasoning="Hm.")
    events = [json.loads(chunk[1]) for chunk in subject.chunks(0, last)]
    for event in events:
        EVENT.validate_python(event)

    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [block["type"] for block in starts] == ["thinking", "text"]
    assert "Hm." not in json.dumps(events)
    assert json.loads(subject.whole([last]))["content"][0]["thinking"] == ""


def test_choices_of_tools_become_constraints() -> None:
    assert generate(tools=[TOOL], tool_choice={"type": "any"}).constraint is not None
    assert generate(tools=[TOOL], tool_choice={"type": "tool", "name": "weather"}).constraint is not None
    assert generate(tools=[TOOL], tool_choice={"type": "auto"}).constraint is None
    assert generate(tools=[TOOL], tool_choice={"type": "none"}).tools == ()


def test_an_output_config_asks_for_effort_and_form() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    made = generate(output_config={"effort": "low", "format": {"type": "json_schema", "schema": schema}})

    assert made.template_kwargs["reasoning_effort"] == "low"
    assert made.constraint is not None
    assert made.constraint.value == schema


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_config": {"format": {"type": "json_schema", "schema": DEEP}}}, "output_config.format.schema"),
        ({"output_config": {"task_budget": 5}}, "output_config.task_budget"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "adaptive", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "disabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "display": "loud"}}, "thinking.display"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0]"),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"bogus": 1}, "bogus"),
    ],
)
def test_a_refused_request_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        generate(**fields)

    assert refused.value.param == param


def test_an_error_has_anthropics_type() -> None:
    body = anthropic_error_body(Overloaded("busy"))

    assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
