"""The held-out set as plain items, the judgement of an answer, and the sample that the API tests use."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_model.corpus.conversation import Conversation
from demo_model.corpus.mixture import held_out_conversations
from demo_model.corpus.stories import STORY_OPENINGS, is_story, names_hero

_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)


@dataclass(frozen=True)
class HeldOutItem:
    """One question: what the model is given, and the right answer (its content, or its tool calls)."""

    category: str
    held_out: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    content: str
    calls: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The item for the sample file; `expected` holds either `content` or `tool_calls`."""
        expected: dict[str, Any] = {"tool_calls": self.calls} if self.calls else {"content": self.content}
        item: dict[str, Any] = {"category": self.category, "held_out": self.held_out, "messages": self.messages}
        if self.tools:
            item["tools"] = self.tools
        return item | {"expected": expected}


def _item(conversation: Conversation) -> HeldOutItem:
    *given, answer = conversation.messages
    calls = [
        {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
        for call in answer.get("tool_calls", [])
    ]
    messages = [_with_call_ids(message) for message in given]
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            messages[index] = message | {"tool_call_id": "call_0"}
    return HeldOutItem(
        conversation.category, conversation.held_out, messages, conversation.tools, answer["content"], calls
    )


def _with_call_ids(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    return message | {"tool_calls": [{"id": f"call_{n}", **call} for n, call in enumerate(message["tool_calls"])]}


def held_out_items(seed: int, per_category: int) -> list[HeldOutItem]:
    """The held-out set of a seed, category by category."""
    return [_item(conversation) for conversation in held_out_conversations(seed, per_category)]


def parse_calls(text: str) -> list[dict[str, Any]] | None:
    """The tool calls in a raw answer; None if one of them is not valid JSON."""
    try:
        return [json.loads(found) for found in _CALL.findall(text)]
    except json.JSONDecodeError:
        return None


def is_right(item: HeldOutItem, text: str) -> bool:
    """True if the raw answer `text` is exactly right: the same string, or the same calls and nothing else.

    A story is right if the grammar can tell it and it has the hero that was asked for.
    """
    if item.calls:
        return parse_calls(text) == item.calls and not _CALL.sub("", text).strip()
    if item.content.startswith(STORY_OPENINGS):
        return is_story(text, item.content) and names_hero(item.messages[-1]["content"], text)
    return text == item.content


def write_sample(path: Path, seed: int, per_category: int) -> int:
    """Write the first items of each category, without stories (they have many right answers); returns how many."""
    taken: dict[str, list[HeldOutItem]] = {}
    for item in held_out_items(seed, 100):
        if item.content.startswith(STORY_OPENINGS):
            continue
        group = taken.setdefault(item.category, [])
        if len(group) < per_category:
            group.append(item)
    lines = [json.dumps(item.as_json(), ensure_ascii=False) for group in taken.values() for item in group]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    return len(lines)
