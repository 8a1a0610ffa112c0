"""OpenAI's response bodies, made from what replicas send.

Each class builds the bodies of one request. A stream's chunk is encoded once, straight to bytes: this runs for every
write to every client.
"""

import time
from abc import ABC, abstractmethod
from typing import Any

import msgspec

from xinfer_runtime.errors import XinferError
from xinfer_runtime.messages import Delta, ToolCall, Usage

_encoder = msgspec.json.Encoder()


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
    }


def _tool_call_body(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


class Responses(ABC):
    """What chat and text completions have in common; subclasses give the shape of one choice."""

    object_name: str
    chunk_object_name: str

    def __init__(self, request_id: str, model: str, *, include_usage: bool = False) -> None:
        self.id = request_id
        self.model = model
        self.created = int(time.time())
        self.include_usage = include_usage

    def whole(self, delta: Delta) -> bytes:
        """The one body of a request that does not stream; `delta` is all its deltas merged."""
        body = self._head(self.object_name)
        body["choices"] = [self._whole_choice(delta)]
        if delta.usage is not None:
            body["usage"] = usage_body(delta.usage)
        return _encoder.encode(body)

    def chunks(self, delta: Delta) -> list[bytes]:
        """The chunks that `delta` stands for: none while nothing visible came, two at the end with usage."""
        chunks = []
        if delta.text or delta.tool_calls or delta.finish_reason is not None:
            chunks.append(self._chunk([self._chunk_choice(delta)]))
        if delta.usage is not None and self.include_usage:
            chunks.append(self._chunk([], delta.usage))
        return chunks

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
    def _whole_choice(self, delta: Delta) -> dict[str, Any]: ...

    @abstractmethod
    def _chunk_choice(self, delta: Delta) -> dict[str, Any]: ...


class ChatResponses(Responses):
    object_name = "chat.completion"
    chunk_object_name = "chat.completion.chunk"

    def __init__(self, request_id: str, model: str, *, include_usage: bool = False) -> None:
        super().__init__(request_id, model, include_usage=include_usage)
        self._calls_sent = 0
        self._role_sent = False

    def _whole_choice(self, delta: Delta) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": delta.text, "refusal": None}
        if delta.tool_calls:
            message["tool_calls"] = [_tool_call_body(call) for call in delta.tool_calls]
            message["content"] = delta.text or None
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": delta.finish_reason}

    def _chunk_choice(self, delta: Delta) -> dict[str, Any]:
        content: dict[str, Any] = {}
        if not self._role_sent:
            self._role_sent = True
            content["role"] = "assistant"
            content["content"] = ""
        if delta.text:
            content["content"] = delta.text
        if delta.tool_calls:
            content["tool_calls"] = [
                {"index": self._calls_sent + i, **_tool_call_body(call)} for i, call in enumerate(delta.tool_calls)
            ]
            self._calls_sent += len(delta.tool_calls)
        return {"index": 0, "delta": content, "logprobs": None, "finish_reason": delta.finish_reason}


class CompletionResponses(Responses):
    object_name = "text_completion"
    chunk_object_name = "text_completion"

    def _whole_choice(self, delta: Delta) -> dict[str, Any]:
        return {"index": 0, "text": delta.text, "logprobs": None, "finish_reason": delta.finish_reason}

    _chunk_choice = _whole_choice
