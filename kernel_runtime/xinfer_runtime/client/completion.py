"""What a model answered, and how it is put together from the pieces of a stream."""

import json
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from xinfer_runtime.client.errors import UnexpectedAnswer
from xinfer_runtime.client.printable import printable
from xinfer_runtime.errors import ErrorInfo, from_info
from xinfer_runtime.messages import ToolCall, Usage


@dataclass(frozen=True)
class Completion:
    """A model's answer. `str()` of it is the text.

    `finish_reason` is "stop", "length", "tool_calls", or None for an answer that was cut short on this side. `usage`
    counts tokens and is None where the server did not say.
    """

    text: str
    finish_reason: str | None = None
    usage: Usage | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    model: str = ""
    id: str = ""

    def __str__(self) -> str:
        return self.text

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        del cycle
        calls = [f"{call.name}({call.arguments})" for call in self.tool_calls]
        printer.text(printable("\n".join([self.text, *calls] if self.text else calls)))

    @property
    def message(self) -> dict[str, Any]:
        """The answer as an assistant's message, to continue the conversation with."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        return message


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(Struct):
    index: int = 0
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(Struct):
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct):
    message: _Message | None = None
    delta: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _PromptDetails(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Error(Struct):
    message: str = ""
    code: str | int | None = None
    param: str | None = None


class _Answer(Struct):
    """OpenAI's four shapes in one: chat completion, completion, and a chunk of either."""

    id: str = ""
    model: str = ""
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


class CompletionBuilder:
    """Collects an answer. `add` takes the JSON of a whole answer or of one chunk and returns the text that is new."""

    def __init__(self) -> None:
        self._id = ""
        self._model = ""
        self._texts: list[str] = []
        self._calls: dict[int, _ToolCall] = {}
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    def add(self, body: bytes | str) -> str:
        """Raises the error that the body carries, or UnexpectedAnswer for a body of another shape."""
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UnexpectedAnswer(f"The server's answer is not an OpenAI completion: {error}.") from None
        if answer.error is not None:
            code = answer.error.code if isinstance(answer.error.code, str) else "internal_error"
            raise from_info(ErrorInfo(code, answer.error.message, answer.error.param))
        self._id = answer.id or self._id
        self._model = answer.model or self._model
        if answer.usage is not None:
            details = answer.usage.prompt_tokens_details
            cached = (details.cached_tokens if details else None) or 0
            self._usage = Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens, cached)
        text = "".join(map(self._add_choice, answer.choices[:1]))
        self._texts.append(text)
        return text

    def _add_choice(self, choice: _Choice) -> str:
        self._finish_reason = choice.finish_reason or self._finish_reason
        message = choice.message or choice.delta or _Message(content=choice.text)
        for position, piece in enumerate(message.tool_calls or ()):
            # A whole answer has no indices; the pieces of a stream are told apart by them.
            call = self._calls.setdefault(position if choice.message else piece.index, _ToolCall())
            call.id = call.id or piece.id
            call.function.name = call.function.name or piece.function.name
            call.function.arguments = (call.function.arguments or "") + (piece.function.arguments or "")
        return message.content or ""

    @property
    def completion(self) -> Completion:
        calls = tuple(
            ToolCall(id=call.id or "", name=call.function.name or "", arguments=call.function.arguments or "{}")
            for _, call in sorted(self._calls.items())
        )
        return Completion("".join(self._texts), self._finish_reason, self._usage, calls, self._model, self._id)


def parse_completion(body: bytes) -> Completion:
    builder = CompletionBuilder()
    builder.add(body)
    return builder.completion


def chat_messages(messages: Any) -> list[dict[str, Any]]:
    """A conversation from what `chat` accepts: a string is one message of the user; anything JSON can hold passes."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return [json.loads(msgspec.json.encode(message)) for message in messages]
