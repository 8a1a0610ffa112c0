"""Tool calls in model output, parsed while they stream.

Families of models mark calls in ways of their own (`tool_formats.py` has them); most put them into a block between two
texts, such as `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`. The output of a model is hostile data: it is
read as JSON and nothing else, and a block that is no call stays text.
"""

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xinfer_runtime.chat.call_spelling import CallSpelling, tagged
from xinfer_runtime.messages import ToolCall

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
MARKERS = frozenset(
    {
        *(OPEN, CLOSE, "<think>", "</think>", "[THINK]", "[/THINK]", "<seed:think>", "</seed:think>"),
        *("<|START_THINKING|>", "<|END_THINKING|>", "<|channel>", "<channel|>"),
        *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        *("<start_function_call>", "<end_function_call>", "<escape>"),
        *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>"),
        *("<|tool_call>", "<tool_call|>", '<|"|>', "<|tool_call|>", "<|/tool_call|>"),
        *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_end|>"),
        *("<|tool_call_argument_begin|>", "<|tool_call_start|>", "<|START_ACTION|>", "<|END_ACTION|>"),
        *("<TOOLCALL>", "</TOOLCALL>", "<tool_calls>", "</tool_calls>", "<seed:tool_call>", "</seed:tool_call>"),
        *("<minimax:tool_call>", "</minimax:tool_call>"),
        *("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>"),
        *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),  # noqa: RUF001
        *("<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),  # noqa: RUF001
    }
)
"""What the parsers must see although some vocabularies have control tokens for it, which are not text otherwise."""


@dataclass(frozen=True)
class ToolFormat:
    """How a family of models marks calls: blocks from `opening` to `closing`, or to the end of the output without one.

    `read` makes calls of a block's inside, None when it is none. Where calls may come `bare`, an output that begins
    with `{` is one block.
    """

    opening: str
    closing: str
    read: Callable[[str], list[ToolCall] | None]
    bare: bool = False
    spellings: tuple[CallSpelling, ...] = ()
    """How calls can be written with JSON for their arguments; none where the family writes them in another way."""


class ToolCallParser:
    """Splits streamed text into text and calls. White space around blocks belongs to neither."""

    def __init__(self, format: ToolFormat | None = None) -> None:
        self._format = format or HERMES
        self._held = _beginning_of(self._format.opening)
        self._pending = ""
        self._before = ""
        """White space and tag before the block that is being read."""
        self._inside = False
        self._begun = False
        self.calls = 0

    def push(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        """Take more output. Returns the text to show now and the calls that it completed."""
        self._pending += text
        shown: list[str] = []
        calls: list[ToolCall] = []
        self._look_for_bare_call()
        while True:
            if self._inside:
                block, found, rest = self._pending.partition(self._format.closing or "\0")
                if not found:
                    break
                self._close(block, found, shown, calls)
                self._pending, self._inside = rest, False
            else:
                before, found, rest = self._pending.partition(self._format.opening)
                if not found:
                    break
                text = before.rstrip()
                shown.append(text)
                self._before = before[len(text) :] + found
                self._pending, self._inside = rest, True
        if not self._inside:
            held = self._held.search(self._pending)
            cut = held.start() if held else len(self._pending)
            shown.append(self._pending[:cut])
            self._pending = self._pending[cut:]
        return "".join(shown), tuple(calls)

    def finish(self) -> tuple[str, tuple[ToolCall, ...]]:
        """No more output will come. A block without its end is a call if it is complete, as models leave the tag
        out.
        """
        shown: list[str] = []
        calls: list[ToolCall] = []
        if self._inside:
            self._close(self._pending, "", shown, calls)
        elif not self.calls or self._pending.strip():
            shown.append(self._pending)
        self._pending, self._inside = "", False
        return "".join(shown), tuple(calls)

    def _look_for_bare_call(self) -> None:
        if not self._begun and self._pending.strip():
            self._begun = True
            self._inside = self._format.bare and self._pending.lstrip().startswith("{")

    def _close(self, block: str, closing: str, shown: list[str], calls: list[ToolCall]) -> None:
        found = self._format.read(block)
        if not found:
            shown.append(self._before + block + closing)
        else:
            calls.extend(found)
            self.calls += len(found)
        self._before = ""


def _beginning_of(tag: str) -> re.Pattern[str]:
    """What may turn out to lead to a block: white space and a beginning of its tag, at the end of the text."""
    beginnings = "|".join(re.escape(tag[:length]) for length in range(len(tag) - 1, 0, -1))
    return re.compile(rf"\s*(?:{beginnings})?\Z")


def tool_call(name: Any, arguments: Any, id: str = "") -> ToolCall | None:
    """A call; its id is one of its own where the model gave none.

    None when `name` is no name or `arguments` are neither an object nor its JSON.
    """
    if not isinstance(name, str) or not name:
        return None
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not isinstance(arguments, dict):
        return None
    text = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(id=id or f"call_{secrets.token_hex(12)}", name=name, arguments=text)


def call_of(value: Any) -> ToolCall | None:
    """The call that a JSON value makes: `{"name": ..., "arguments" or "parameters": {...}}`, or with `tool_name`."""
    if not isinstance(value, dict):
        return None
    return tool_call(value.get("name", value.get("tool_name")), value.get("arguments", value.get("parameters", {})))


def parse_call(block: str) -> ToolCall | None:
    """The call that the JSON text of one block makes, None when it is none."""
    try:
        return call_of(json.loads(block))
    except (ValueError, RecursionError):
        return None


def _one_call(block: str) -> list[ToolCall] | None:
    call = parse_call(block)
    return [call] if call is not None else None


HERMES = ToolFormat(OPEN, CLOSE, _one_call, spellings=(tagged(OPEN, CLOSE),))
"""Hermes and Qwen models, and the demo model."""
