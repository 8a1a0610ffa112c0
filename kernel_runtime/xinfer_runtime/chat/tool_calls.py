"""Tool calls in model output: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` blocks, parsed while they
stream.

The format of Hermes and Qwen models, and of the demo model. The output of a model is hostile data: it is read as JSON
and nothing else, and a block that is no call stays text.
"""

import json
import re
import secrets

from xinfer_runtime.messages import ToolCall

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
MARKERS = frozenset({OPEN, CLOSE})

_HELD = re.compile(r"\s*(?:<(?:t(?:o(?:o(?:l(?:_(?:c(?:a(?:l(?:l)?)?)?)?)?)?)?)?)?)?\Z")
"""What may turn out to lead to a block: white space and a beginning of the tag, at the end of the text."""


class ToolCallParser:
    """Splits streamed text into text and calls. White space around blocks belongs to neither."""

    def __init__(self) -> None:
        self._pending = ""
        self._gap = ""
        """White space before the block that is being read."""
        self._inside = False
        self.calls = 0

    def push(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        """Take more output. Returns the text to show now and the calls that it completed."""
        self._pending += text
        shown: list[str] = []
        calls: list[ToolCall] = []
        while True:
            if self._inside:
                block, found, rest = self._pending.partition(CLOSE)
                if not found:
                    break
                self._close(block, found, shown, calls)
                self._pending, self._inside = rest, False
            else:
                before, found, rest = self._pending.partition(OPEN)
                if not found:
                    break
                text = before.rstrip()
                shown.append(text)
                self._gap = before[len(text) :]
                self._pending, self._inside = rest, True
        if not self._inside:
            held = _HELD.search(self._pending)
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

    def _close(self, block: str, closing: str, shown: list[str], calls: list[ToolCall]) -> None:
        call = parse_call(block)
        if call is None:
            shown.append(self._gap + OPEN + block + closing)
        else:
            calls.append(call)
            self.calls += 1


def parse_call(block: str) -> ToolCall | None:
    """The call that the text of one block makes, None when it is none."""
    try:
        value = json.loads(block)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not isinstance(arguments, dict):
        return None
    text = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(id=f"call_{secrets.token_hex(12)}", name=value["name"], arguments=text)
