"""OpenAI's bodies of chat and text completions, made from what replicas send.

Each class builds the bodies of one request, which may have several choices. A stream's chunk is encoded once, straight
to bytes: this runs for every write to every client.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from jupyter_xinfer.protocol.best_of import best
from jupyter_xinfer.protocol.forced_calls import ForcedCalls
from jupyter_xinfer.protocol.line_limit import in_lines
from jupyter_xinfer.protocol.logprobs import chat_logprobs, completion_logprobs
from xinfer_runtime.errors import XinferError
from xinfer_runtime.messages import Delta, FinishReason, ToolCall, Usage

_encoder = msgspec.json.Encoder()
Event = bytes | tuple[str, bytes]
"""The data of a server-sent event, with its name where it has one."""


def error_body(error: XinferError) -> dict[str, Any]:
    """OpenAI's error object, and `detail` with the same message, which is where Xinference's client looks."""
    return {
        "error": {"message": error.message, "type": error.openai_type, "param": error.param, "code": error.code},
        "detail": error.message,
    }


def usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def summed_usage(usages: Sequence[Usage], choices_per_prompt: int = 1) -> Usage:
    """The usage of all choices: a prompt counts once, however many choices it has."""
    prompts = usages[::choices_per_prompt]
    return Usage(
        sum(usage.prompt_tokens for usage in prompts),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in prompts),
        sum(usage.reasoning_tokens for usage in usages),
    )


class Encoder(ABC):
    """The bodies of one request: one whole body, or the events of a stream."""

    id: str
    closing: Event | None = None
    """What ends a stream that went well or not."""

    @abstractmethod
    def whole(self, deltas: Sequence[Delta]) -> bytes:
        """The one body of a request that does not stream; each delta is all of one choice's deltas merged."""

    @abstractmethod
    def chunks(self, index: int, delta: Delta) -> list[Event]:
        """The events that `delta` of choice `index` stands for: none while nothing visible came."""

    def failed(self, error: XinferError) -> list[Event]:
        """The events of a failure after the stream began; clients look for `error` in the data."""
        return [_encoder.encode(error_body(error))]


class Responses(Encoder):
    """What chat and text completions have in common; subclasses give the shape of one choice."""

    object_name: str
    chunk_object_name: str
    closing = b"[DONE]"

    def __init__(
        self,
        request_id: str,
        model: str,
        *,
        choices: int = 1,
        choices_per_prompt: int = 1,
        include_usage: bool = False,
        logprobs: bool = False,
    ) -> None:
        self.id = request_id
        self.model = model
        self.created = int(time.time())
        self.include_usage = include_usage
        self.logprobs = logprobs
        self._choices_per_prompt = choices_per_prompt
        self._usages: list[Usage | None] = [None] * choices

    def whole(self, deltas: Sequence[Delta]) -> bytes:
        return self._body(deltas, deltas, self._choices_per_prompt)

    def _body(self, shown: Sequence[Delta], computed: Sequence[Delta], per_prompt: int) -> bytes:
        """`shown` are the choices; `computed`, so many per prompt, is what they cost."""
        body = self._head(self.object_name)
        body["choices"] = [self._whole_choice(index, delta) for index, delta in enumerate(shown)]
        usages = [delta.usage for delta in computed if delta.usage is not None]
        body["usage"] = usage_body(summed_usage(usages, per_prompt))
        return _encoder.encode(body)

    def chunks(self, index: int, delta: Delta) -> list[Event]:
        chunks: list[Event] = []
        if self._shows(delta):
            chunks += [self._chunk([self._chunk_choice(index, part)]) for part in in_lines(delta)]
        if delta.usage is not None:
            self._usages[index] = delta.usage
            usages = [usage for usage in self._usages if usage is not None]
            if self.include_usage and len(usages) == len(self._usages):
                chunks.append(self._chunk([], summed_usage(usages, self._choices_per_prompt)))
        return chunks

    def _shows(self, delta: Delta) -> bool:
        return bool(delta.text or delta.reasoning or delta.tool_calls or delta.finish_reason or delta.logprobs)

    def _chunk(self, choices: list[dict[str, Any]], usage: Usage | None = None) -> bytes:
        body = self._head(self.chunk_object_name)
        body["choices"] = choices
        if self.include_usage:
            # OpenAI sends `"usage": null` on every chunk but the last once usage was asked for.
            body["usage"] = usage_body(usage) if usage is not None else None
        return _encoder.encode(body)

    def _head(self, object_name: str) -> dict[str, Any]:
        return {"id": self.id, "object": object_name, "created": self.created, "model": self.model}

    @abstractmethod
    def _whole_choice(self, index: int, delta: Delta) -> dict[str, Any]: ...

    @abstractmethod
    def _chunk_choice(self, index: int, delta: Delta) -> dict[str, Any]: ...


class ChatResponses(Responses):
    object_name = "chat.completion"
    chunk_object_name = "chat.completion.chunk"

    def __init__(self, request_id: str, model: str, *, forced_calls: bool = False, **options: Any) -> None:
        super().__init__(request_id, model, **options)
        self._calls_sent: dict[int, int] = {}
        """Calls sent so far, by choice; a choice that is not in it has sent nothing yet."""
        self._readers = [ForcedCalls() for _ in self._usages] if forced_calls else []

    def whole(self, deltas: Sequence[Delta]) -> bytes:
        return super().whole([self._read(index, delta) for index, delta in enumerate(deltas)])

    def chunks(self, index: int, delta: Delta) -> list[Event]:
        return super().chunks(index, self._read(index, delta))

    def _read(self, index: int, delta: Delta) -> Delta:
        return self._readers[index].apply(delta) if self._readers else delta

    def _whole_choice(self, index: int, delta: Delta) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": delta.text, "refusal": None}
        if delta.reasoning:
            message["reasoning_content"] = delta.reasoning
        if delta.tool_calls:
            message["tool_calls"] = [_tool_call_body(call) for call in delta.tool_calls]
            message["content"] = delta.text or None
        return {"index": index, "message": message, **self._ending(delta)}

    def _chunk_choice(self, index: int, delta: Delta) -> dict[str, Any]:
        content: dict[str, Any] = {}
        if index not in self._calls_sent:
            self._calls_sent[index] = 0
            content["role"] = "assistant"
            content["content"] = ""
        if delta.reasoning:
            content["reasoning_content"] = delta.reasoning
        if delta.text:
            content["content"] = delta.text
        if delta.tool_calls:
            content["tool_calls"] = [self._call(index, call) for call in delta.tool_calls]
        return {"index": index, "delta": content, **self._ending(delta)}

    def _call(self, index: int, call: ToolCall) -> dict[str, Any]:
        """A call, or more of the arguments of the one before (`in_lines`)."""
        if not call.id:
            return {"index": self._calls_sent[index] - 1, "function": {"arguments": call.arguments}}
        self._calls_sent[index] += 1
        return {"index": self._calls_sent[index] - 1, **_tool_call_body(call)}

    def _ending(self, delta: Delta) -> dict[str, Any]:
        logprobs = chat_logprobs(delta.logprobs) if self.logprobs else None
        return {"logprobs": logprobs, "finish_reason": delta.finish_reason}


class CompletionResponses(Responses):
    object_name = "text_completion"
    chunk_object_name = "text_completion"

    def __init__(
        self,
        request_id: str,
        model: str,
        *,
        echoes: Sequence[str] = ("",),
        candidates_per_prompt: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(request_id, model, choices=len(echoes), **options)
        self._candidates_per_prompt = max(candidates_per_prompt, self._choices_per_prompt)
        self._echoes = list(echoes)
        """What still goes before the text of each choice."""
        self._offsets = [0] * len(echoes)

    def whole(self, deltas: Sequence[Delta]) -> bytes:
        candidates, choices = self._candidates_per_prompt, self._choices_per_prompt
        prompts = [deltas[start : start + candidates] for start in range(0, len(deltas), candidates)]
        return self._body([delta for group in prompts for delta in best(group, choices)], deltas, candidates)

    def chunks(self, index: int, delta: Delta) -> list[Event]:
        return super().chunks(index, self._echoed(index, delta))

    def _echoed(self, index: int, delta: Delta) -> Delta:
        echo, self._echoes[index] = self._echoes[index], ""
        return replace(delta, text=echo + delta.text) if echo else delta

    def _whole_choice(self, index: int, delta: Delta) -> dict[str, Any]:
        return self._chunk_choice(index, self._echoed(index, delta))

    def _chunk_choice(self, index: int, delta: Delta) -> dict[str, Any]:
        logprobs = None
        if self.logprobs:
            logprobs, self._offsets[index] = completion_logprobs(delta.logprobs, self._offsets[index])
        reason = FinishReason.STOP if delta.finish_reason is FinishReason.TOOL_CALLS else delta.finish_reason
        return {"index": index, "text": delta.text, "logprobs": logprobs, "finish_reason": reason}


def _tool_call_body(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
