import json
from typing import Any

import pytest

from xinfer_runtime.client.completion import Completion, CompletionBuilder, chat_messages, parse_completion
from xinfer_runtime.client.errors import UnexpectedAnswer
from xinfer_runtime.errors import ReplicaLost
from xinfer_runtime.messages import ChatMessage, ToolCall, Usage

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}}


def collect(*chunks: dict[str, Any]) -> tuple[list[str], Completion]:
    builder = CompletionBuilder()
    return [builder.add(json.dumps(chunk)) for chunk in chunks], builder.completion


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"id": "c1", "model": "demo", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def test_a_chat_answer_is_parsed() -> None:
    answer = {
        "id": "c1",
        "model": "demo",
        "choices": [{"message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    expected = Completion("Paris.", "stop", Usage(9, 4, 8), (), "demo", "c1")
    assert parse_completion(json.dumps(answer).encode()) == expected


def test_str_of_an_answer_is_its_text() -> None:
    assert str(Completion("Paris.")) == "Paris."


def test_a_streamed_answer_is_put_together() -> None:
    texts, completion = collect(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Par"}),
        chunk({"content": "is."}),
        chunk({}, "stop"),
        {"id": "c1", "model": "demo", "choices": [], "usage": USAGE},
    )
    assert texts == ["", "Par", "is.", "", ""]
    assert completion == Completion("Paris.", "stop", Usage(9, 4, 8), (), "demo", "c1")


def test_a_streamed_plain_completion_is_put_together() -> None:
    _, completion = collect({"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "finish_reason": "length"}]})
    assert (completion.text, completion.finish_reason) == ("ab", "length")


def test_pieces_of_tool_calls_are_joined_by_index() -> None:
    _, completion = collect(
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}, "tool_calls"),
    )
    assert completion.tool_calls == (
        ToolCall(id="a", name="f", arguments='{"x": 1}'),
        ToolCall(id="b", name="g", arguments="{}"),
    )


def test_tool_calls_of_a_whole_answer_need_no_index() -> None:
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("f", "g")]
    completion = parse_completion(json.dumps({"choices": [{"message": {"tool_calls": calls}}]}).encode())
    assert [call.name for call in completion.tool_calls] == ["f", "g"]


def test_the_message_of_an_answer_continues_the_conversation() -> None:
    completion = Completion("", tool_calls=(ToolCall(id="a", name="f", arguments="{}"),))
    assert completion.message == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }


def test_an_error_in_the_stream_comes_back_as_its_class() -> None:
    with pytest.raises(ReplicaLost, match="gone"):
        collect({"error": {"message": "gone", "type": "server_error", "code": "replica_lost", "param": None}})


@pytest.mark.parametrize("body", ["<html>", "[]", '{"choices": [{"message": {"content": 3}}]}'])
def test_an_answer_of_another_shape_is_an_error(body: str) -> None:
    with pytest.raises(UnexpectedAnswer):
        CompletionBuilder().add(body)


def test_a_string_is_one_message_of_the_user() -> None:
    assert chat_messages("Hi") == [{"role": "user", "content": "Hi"}]


def test_messages_may_be_our_own_structs() -> None:
    assert chat_messages([ChatMessage(role="user", content="Hi")]) == [{"role": "user", "content": "Hi"}]
