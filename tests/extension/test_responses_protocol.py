"""The Responses API: what a request means, and the events and bodies, checked against the openai package's types."""

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from jupyter_xinfer.protocol.chat_messages import Message
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openai_requests import ChatRequest
from jupyter_xinfer.protocol.response_store import ResponseStore
from jupyter_xinfer.protocol.responses_events import ResponsesEncoder
from jupyter_xinfer.protocol.responses_requests import ResponsesRequest
from xinfer_runtime.errors import EngineError, InvalidRequest, NotFound
from xinfer_runtime.messages import Delta, FinishReason, ToolCall, Usage

CALL = ToolCall(id="c1", name="weather", arguments='{"city": "Rome"}')
LAST = Delta("id", "lo", (2,), FinishReason.STOP, Usage(5, 2, 1))
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def request(**fields: Any) -> ResponsesRequest:
    return decode(json.dumps({"model": "m", "input": "Hello!", **fields}).encode(), ResponsesRequest)


def chat(history: tuple[Message, ...] = (), **fields: Any) -> ChatRequest:
    return request(**fields).as_chat(history)


def encoder(kept: list[Message] | None = None, **fields: Any) -> ResponsesEncoder:
    return ResponsesEncoder("resp_1", request(**fields), (kept if kept is not None else []).append, forced_calls=False)


def events(subject: ResponsesEncoder, *deltas: Delta) -> list[dict[str, Any]]:
    chunks = [chunk for delta in deltas for chunk in subject.chunks(0, delta)]
    found = [json.loads(chunk[1]) for chunk in chunks if isinstance(chunk, tuple)]
    assert [chunk[0] for chunk in chunks] == [event["type"] for event in found]
    return found


def test_a_whole_response_conforms_to_the_clients_types() -> None:
    whole = Delta("id", "Hello", (1, 2), FinishReason.TOOL_CALLS, Usage(5, 2, 1), (CALL,))
    body = json.loads(encoder(instructions="Be brief.").whole([whole]))
    Response.model_validate(body)

    assert [item["type"] for item in body["output"]] == ["message", "function_call"]


def test_every_event_conforms_to_the_clients_types_and_is_numbered() -> None:
    found = events(encoder(), Delta("id", "Hel", reasoning="Hm."), Delta("id", "", tool_calls=(CALL,)), LAST)
    for event in found:
        EVENT.validate_python(event)

    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert found[-1]["type"] == "response.completed"
    items = found[-1]["response"]["output"]
    assert [item["type"] for item in items] == ["reasoning", "message", "function_call", "message"]
    assert all(item["status"] == "completed" for item in items)


def test_the_last_event_says_what_the_whole_body_says() -> None:
    streamed = events(encoder(), Delta("id", "Hel"), LAST)[-1]["response"]
    whole = json.loads(encoder().whole([Delta("id", "Hello", (1, 2), FinishReason.STOP, Usage(5, 2, 1))]))

    for body in (streamed, whole):
        body["output"][0]["id"] = ""
        body["created_at"] = body["completed_at"] = 0
    assert streamed == whole


def test_a_failure_in_the_stream_is_an_event_with_the_failed_response() -> None:
    subject = encoder()
    events(subject, Delta("id", "Hel"))
    [failed] = [json.loads(event[1]) for event in subject.failed(EngineError("broken")) if isinstance(event, tuple)]

    assert EVENT.validate_python(failed).type == "response.failed"
    assert failed["response"]["error"]["message"] == "broken"


def test_a_user_is_told_again_and_never_null() -> None:
    assert "user" not in encoder().response()
    assert encoder(user="ann").response()["user"] == "ann"


def test_what_was_said_is_kept_for_the_next_response() -> None:
    kept: list[Message] = []
    events(encoder(kept), Delta("id", reasoning="Hm."), Delta("id", "Hel", tool_calls=(CALL,)), LAST)

    [turn] = kept
    assert (turn.content, turn.reasoning_content) == ("Hello", "Hm.")
    assert [call.id for call in turn.tool_calls or ()] == ["c1"]


def test_items_become_messages_with_calls_in_one_turn() -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {**call, "call_id": "a"},
        {**call, "call_id": "b"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
    ]

    messages = chat(input=items, instructions="Be brief.").to_generate("id").messages

    assert messages is not None
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool"]
    assert [each.id for each in messages[2].tool_calls] == ["a", "b"]
    assert messages[2].reasoning == "Hm."


def test_options_reach_the_chat_request() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}

    assert chat(tools=[tool], tool_choice={"type": "function", "name": "f"}).to_generate("id").constraint is not None
    assert chat(text={"format": schema}).to_generate("id").constraint is not None
    assert chat(max_output_tokens=5).to_generate("id").sampling.max_tokens == 5
    assert chat(reasoning={"effort": "low"}).to_generate("id").template_kwargs == {"reasoning_effort": "low"}


@pytest.mark.parametrize("name", sorted(ResponsesRequest.unsupported))
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    value: Any = {"background": True, "include": ["x"], "top_logprobs": 1, "max_tool_calls": 1}.get(name, "x")

    with pytest.raises(InvalidRequest) as refused:
        chat(**{name: value})

    assert refused.value.param == name


def test_a_caller_goes_on_only_with_responses_of_his_own() -> None:
    store = ResponseStore()
    store.put("ann", "resp_1", [Message(role="user", content="Hi")])

    assert store.get("ann", "resp_1")[0].content == "Hi"
    with pytest.raises(NotFound):
        store.get("bob", "resp_1")


def test_the_oldest_conversations_are_forgotten() -> None:
    store = ResponseStore(max_responses=2, max_bytes=1000, max_callers=2)
    for name in ("1", "2", "3"):
        store.put("ann", name, [])
    store.put("bob", "large", [Message(role="user", content="x" * 2000)])
    store.put("cay", "1", [])

    for caller, name in (("ann", "1"), ("ann", "3"), ("bob", "large")):
        with pytest.raises(NotFound):
            store.get(caller, name)
    assert store.get("cay", "1") == []


@pytest.mark.parametrize("strict", [True, False, None])
def test_a_strict_function_reaches_the_replica_as_one_and_is_told_back(strict: bool | None) -> None:
    fields = {"tools": [{"type": "function", "name": "f", **({"strict": strict} if strict is not None else {})}]}
    [tool] = chat(**fields).to_generate("id").tools

    assert tool["function"].get("strict", False) is bool(strict)
    assert encoder(**fields).response()["tools"][0]["strict"] is bool(strict)


@pytest.mark.parametrize("name", ["summary", "generate_summary"])
def test_thoughts_come_as_their_summary_where_one_is_asked_for(name: str) -> None:
    kept: list[Message] = []
    subject = encoder(kept, reasoning={name: "auto"})
    found = events(subject, Delta("id", reasoning="Hm"), Delta("id", reasoning="."), LAST)
    for event in found:
        EVENT.validate_python(event)

    [thoughts, _] = found[-1]["response"]["output"]
    assert thoughts["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert thoughts["content"] == []
    assert found[-1]["response"]["reasoning"]["summary"] == "auto"
    assert [event["type"] for event in found if "summary" in event["type"]] == [
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
    ]
    assert kept[0].reasoning_content == "Hm."
    [told] = request(input=[thoughts, {"role": "assistant", "content": "lo"}]).messages()
    assert told.reasoning_content == "Hm."


def test_thoughts_are_no_summary_where_none_is_asked_for() -> None:
    [thoughts, _] = events(encoder(), Delta("id", reasoning="Hm."), LAST)[-1]["response"]["output"]

    assert (thoughts["summary"], thoughts["content"]) == ([], [{"type": "reasoning_text", "text": "Hm."}])


@pytest.mark.parametrize("name", ["summary", "generate_summary"])
@pytest.mark.parametrize("wanted", ["concise", "detailed"])
def test_a_summary_that_somebody_would_have_to_write_is_refused_by_name(name: str, wanted: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(reasoning={name: wanted})

    assert refused.value.param == f"reasoning.{name}"
