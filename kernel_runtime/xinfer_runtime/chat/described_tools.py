"""Tools for models whose chat template knows nothing of them: described in the messages, called with plain JSON.

The description goes into the system message, or else into the first one of the user's, because some templates take no
system message. Calls and their results of earlier turns become text of the assistant and of the user.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from xinfer_runtime.messages import ChatMessage, ToolCall

_DESCRIPTION = """\
You can call these functions:
{functions}
To call one, answer with nothing but JSON: {{"name": "the function's name", "arguments": {{"its parameters": "..."}}}}
Call one only if it helps; otherwise answer in your own words."""


def with_described_tools(messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> list[ChatMessage]:
    """`messages` as a template without tools understands them, `tools` (OpenAI's objects) included."""
    plain: list[ChatMessage] = []
    for message in messages:
        spoken = _plain(message)
        if message.role == "tool" and plain and plain[-1].role == "user":
            # Results of several calls, which templates that want roles to alternate would refuse one by one.
            plain[-1] = replace(plain[-1], content=f"{plain[-1].content}\n{spoken.content}")
        else:
            plain.append(spoken)
    if not tools:
        return plain
    functions = "\n".join(json.dumps(tool.get("function", {}), ensure_ascii=False) for tool in tools)
    description = _DESCRIPTION.format(functions=functions)
    first = next((i for i, message in enumerate(plain) if message.role in ("system", "user")), None)
    if first is None:
        return [ChatMessage(role="user", content=description), *plain]
    told = plain[first]
    before, after = (told.content or "", description) if told.role == "system" else (description, told.content or "")
    plain[first] = replace(told, content=f"{before}\n\n{after}".strip())
    return plain


def _plain(message: ChatMessage) -> ChatMessage:
    if message.role == "tool":
        return ChatMessage(role="user", content=f"Result of the call{_of(message.name)}: {message.content or ''}")
    if message.tool_calls:
        texts = [message.content or "", *map(_call_text, message.tool_calls)]
        return ChatMessage(role=message.role, content="\n".join(filter(None, texts)), reasoning=message.reasoning)
    return message


def _of(name: str | None) -> str:
    return f" of {name}" if name else ""


def _call_text(call: ToolCall) -> str:
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        arguments = call.arguments
    return json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)
