"""The output of gpt-oss models: messages in channels, `<|channel|>final<|message|>Hello<|end|>`.

`analysis` is thoughts, `final` the answer, and a message to `functions.NAME` a call of that tool with JSON arguments.
The format is OpenAI's "harmony response format". A message ends with `<|end|>`, or where the output does.
"""

import re

from xinfer_runtime.chat.tool_calls import tool_call
from xinfer_runtime.messages import ToolCall

_HEADER_END = "<|message|>"
_ENDS = ("<|end|>", "<|start|>", "<|channel|>")
_CHANNEL = re.compile(r"(?:<\|channel\|>)?\s*(analysis|commentary|final)")
_RECIPIENT = re.compile(r"to=functions\.([\w.\-]+)")


class HarmonyParser:
    """Splits streamed output into answer, thoughts and calls."""

    def __init__(self) -> None:
        self._pending = ""
        self._header: str | None = None
        """What stood before the message that is being read; None between messages."""
        self._arguments = ""
        self.calls = 0

    def push(self, text: str) -> tuple[str, str, tuple[ToolCall, ...]]:
        """Take more output. Returns its answer, its thoughts and the calls that it completed."""
        self._pending += text
        answer, thoughts = "", ""
        calls: list[ToolCall] = []
        while True:
            if self._header is None:
                header, found, rest = self._pending.partition(_HEADER_END)
                if not found:
                    break
                self._header, self._pending = header, rest
            body, ended = self._body()
            answer, thoughts = self._sort(body, answer, thoughts)
            if not ended:
                break
            calls += self._end_message()
        return answer, thoughts, tuple(calls)

    def finish(self) -> tuple[str, str, tuple[ToolCall, ...]]:
        """No more output will come."""
        if self._header is None:
            # A header without a message says nothing, but text without any header is an answer.
            text, self._pending = self._pending, ""
            return ("" if "<|" in text else text), "", ()
        body, self._pending = self._pending, ""
        answer, thoughts = self._sort(body, "", "")
        return answer, thoughts, tuple(self._end_message())

    def _body(self) -> tuple[str, bool]:
        """What is certain to belong to the message, and whether the message has ended."""
        ends = [at for end in _ENDS if (at := self._pending.find(end)) >= 0]
        if ends:
            body, self._pending = self._pending[: min(ends)], self._pending[min(ends) :].removeprefix("<|end|>")
            return body, True
        longest = max(map(len, _ENDS))
        tails = (n for n in range(longest - 1, 0, -1) if any(e.startswith(self._pending[-n:]) for e in _ENDS))
        kept = next(tails, 0) if self._pending else 0
        cut = max(len(self._pending) - kept, 0)
        body, self._pending = self._pending[:cut], self._pending[cut:]
        return body, False

    def _sort(self, body: str, answer: str, thoughts: str) -> tuple[str, str]:
        header = self._header or ""
        if _RECIPIENT.search(header):
            self._arguments += body
            return answer, thoughts
        channel = _CHANNEL.search(header)
        if channel is not None and channel[1] == "analysis":
            return answer, thoughts + body
        return answer + body, thoughts

    def _end_message(self) -> list[ToolCall]:
        recipient = _RECIPIENT.search(self._header or "")
        call = tool_call(recipient[1], self._arguments) if recipient else None
        self._header, self._arguments = None, ""
        if call is None:
            return []
        self.calls += 1
        return [call]
