"""What the text of a chat model means: the answer, thoughts and tool calls, for the family that its template shows."""

from dataclasses import dataclass

from msgspec import Struct

from xinfer_runtime.chat.harmony import HarmonyParser
from xinfer_runtime.chat.reasoning import ReasoningParser, ThoughtTags, thought_tags
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


@dataclass(frozen=True)
class OutputForm:
    """How an output marks its parts."""

    format: ToolFormat
    thoughts: ThoughtTags | None = None
    inside: bool = False
    """Whether the prompt opened thoughts, so that the output begins with them."""
    harmony: bool = False
    """Whether it is made of gpt-oss' messages, and none of the above."""


def output_form(template: str, prompt_end: str, format: ToolFormat | None = None) -> OutputForm:
    """The form that the chat template `template` shows its model.

    `prompt_end` are the last few characters of the prompt. A `format` is one that calls are kept to, whatever the
    template shows.
    """
    tags = thought_tags(template)
    inside = tags is not None and prompt_end.rstrip().endswith(tags.opening)
    return OutputForm(format or tool_format(template), tags, inside, _HARMONY_MARK in template and format is None)


class OutputParser:
    """Reads the output of one request, of the form `form`, while it streams.

    Without `tools`, what looks like a call is text.
    """

    def __init__(self, form: OutputForm, *, tools: bool) -> None:
        self._harmony = HarmonyParser() if form.harmony else None
        self._reasoning = ReasoningParser(form.thoughts, inside=form.inside) if form.thoughts is not None else None
        self._tools = ToolCallParser(form.format) if tools else None

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
