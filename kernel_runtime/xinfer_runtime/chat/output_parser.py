"""What the text of a chat model means: the answer, thoughts and tool calls, for the family that its template shows."""

from msgspec import Struct

from xinfer_runtime.chat.harmony import HarmonyParser
from xinfer_runtime.chat.reasoning import ReasoningParser, thought_tags
from xinfer_runtime.chat.tool_calls import ToolCallParser, ToolFormat
from xinfer_runtime.chat.tool_formats import tool_format
from xinfer_runtime.messages import ToolCall

_HARMONY_MARK = "<|channel|>"


class Output(Struct, frozen=True):
    text: str
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()

    def __add__(self, later: "Output") -> "Output":
        return Output(self.text + later.text, self.reasoning + later.reasoning, self.calls + later.calls)


class OutputParser:
    """Reads the output of one request while it streams.

    `template` is the model's chat template, `prompt_end` the last few characters of the prompt. Without `tools`, what
    looks like a call is text. A `format` is one that the output is kept to, whatever the template shows.
    """

    def __init__(self, template: str, prompt_end: str, *, tools: bool, format: ToolFormat | None = None) -> None:
        self._harmony = HarmonyParser() if _HARMONY_MARK in template and format is None else None
        tags = thought_tags(template)
        inside = tags is not None and prompt_end.rstrip().endswith(tags.opening)
        self._reasoning = ReasoningParser(tags, inside=inside) if tags is not None else None
        self._tools = ToolCallParser(format or tool_format(template)) if tools else None

    @property
    def calls(self) -> int:
        """How many calls came so far."""
        parser = self._harmony or self._tools
        return parser.calls if parser is not None else 0

    def push(self, text: str) -> Output:
        """Take more output. Returns what is certain of it by now."""
        if self._harmony is not None:
            return Output(*self._harmony.push(text))
        reasoning = ""
        if self._reasoning is not None:
            text, reasoning = self._reasoning.push(text)
        if self._tools is None:
            return Output(text, reasoning)
        shown, calls = self._tools.push(text)
        return Output(shown, reasoning, calls)

    def finish(self) -> Output:
        """No more output will come."""
        if self._harmony is not None:
            return Output(*self._harmony.finish())
        text, reasoning = self._reasoning.finish() if self._reasoning is not None else ("", "")
        if self._tools is None:
            return Output(text, reasoning)
        shown, calls = self._tools.push(text)
        tail, more = self._tools.finish()
        return Output(shown + tail, reasoning, calls + more)
