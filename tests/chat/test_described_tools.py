"""Tools for templates that know nothing of them."""

import json
from typing import Any

from xinfer_runtime.chat.described_tools import with_described_tools
from xinfer_runtime.messages import ChatMessage, ToolCall

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
USER = ChatMessage(role="user", content="What is 1 + 2?")
CALL = ToolCall(id="c", name="add", arguments='{"a": 1}')


def test_the_description_follows_the_system_message() -> None:
    system, user = with_described_tools([ChatMessage(role="system", content="Be brief."), USER], [TOOL])

    assert (system.content or "").startswith("Be brief.\n\n")
    assert json.dumps(TOOL["function"]) in (system.content or "")
    assert user == USER


def test_without_a_system_message_the_first_of_the_user_begins_with_it() -> None:
    first, second = with_described_tools([USER, USER], [TOOL])

    assert (first.content or "").endswith("\n\nWhat is 1 + 2?")
    assert '"add"' in (first.content or "")
    assert second == USER


def test_calls_and_results_become_what_was_said() -> None:
    turns = [
        USER,
        ChatMessage(role="assistant", content="Well.", tool_calls=(CALL, CALL)),
        ChatMessage(role="tool", content="3", tool_call_id="c"),
        ChatMessage(role="tool", content="4", tool_call_id="c", name="add"),
    ]
    _, assistant, results = with_described_tools(turns, [])

    assert assistant.content == 'Well.\n{"name": "add", "arguments": {"a": 1}}\n{"name": "add", "arguments": {"a": 1}}'
    assert assistant.tool_calls == ()
    assert (results.role, results.content) == ("user", "Result of the call: 3\nResult of the call of add: 4")


def test_a_conversation_that_nobody_began_gets_a_message_for_it() -> None:
    described, assistant = with_described_tools([ChatMessage(role="assistant", content="Hi.")], [TOOL])

    assert described.role == "user"
    assert assistant.content == "Hi."
