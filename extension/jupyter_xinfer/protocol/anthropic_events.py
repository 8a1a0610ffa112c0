"""The bodies and the stream's events of Anthropic's Messages API."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from jupyter_xinfer.protocol.forced_calls import ForcedCalls
from jupyter_xinfer.protocol.openai_responses import Encoder, Event, error_body
from xinfer_runtime.errors import EngineError, XinferError
from xinfer_runtime.messages import Delta, FinishReason, ToolCall, Usage

_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.ABORT: "end_turn",
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def anthropic_error_body(error: XinferError) -> dict[str, Any]:
    """Anthropic's error object, with what our other routes say beside it."""
    body = error_body(error)
    body["type"] = "error"
    body["error"]["type"] = _ERRORS.get(error.status, "api_error")
    return body


class MessagesEncoder(Encoder):
    """One message: its content blocks are thoughts, text and calls, in the order in which they came."""

    def __init__(self, message_id: str, model: str, *, forced_calls: bool, shows_thoughts: bool = True) -> None:
        self.id = message_id
        self.model = model
        self._reader = ForcedCalls() if forced_calls else None
        self._shows_thoughts = shows_thoughts
        self._blocks = 0
        self._open: str | None = None
        """The kind of the block that is being written."""
        self._started = False

    def whole(self, deltas: Sequence[Delta]) -> bytes:
        delta = self._read(deltas[0])
        content: list[dict[str, Any]] = []
        if delta.reasoning:
            shown = delta.reasoning if self._shows_thoughts else ""
            content.append({"type": "thinking", "thinking": shown, "signature": ""})
        if delta.text:
            content.append({"type": "text", "text": delta.text, "citations": None})
        content += [{**_call_body(call), "input": _input(call)} for call in delta.tool_calls]
        body = self._message(content, _usage_body(delta.usage))
        body.update(_ending(delta))
        return msgspec.json.encode(body)

    def chunks(self, index: int, delta: Delta) -> list[Event]:
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(_event("message_start", message=self._message([], _usage_body(None))))
        delta = self._read(delta)
        if delta.reasoning:
            shown = delta.reasoning if self._shows_thoughts else ""
            events += self._write("thinking", {"thinking": "", "signature": ""}, "thinking_delta", shown)
        if delta.text:
            events += self._write("text", {"text": ""}, "text_delta", delta.text)
        for call in delta.tool_calls:
            events += self._call(call)
        if delta.finish_reason is not None:
            events += self._stop()
            events.append(_event("message_delta", delta=_ending(delta), usage=_usage_body(delta.usage)))
            events.append(_event("message_stop"))
        return events

    def failed(self, error: XinferError) -> list[Event]:
        return [("error", msgspec.json.encode(anthropic_error_body(error)))]

    def _read(self, delta: Delta) -> Delta:
        return self._reader.apply(delta) if self._reader is not None else delta

    def _message(self, content: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _write(self, kind: str, empty: dict[str, str], delta_type: str, text: str) -> list[Event]:
        events: list[Event] = []
        if self._open != kind:
            events = [*self._stop(), self._start(kind, {"type": kind, **empty})]
        if not text:
            return events
        name = delta_type.removesuffix("_delta")
        events.append(_event("content_block_delta", index=self._blocks, delta={"type": delta_type, name: text}))
        return events

    def _call(self, call: ToolCall) -> list[Event]:
        arguments = {"type": "input_json_delta", "partial_json": call.arguments}
        return [
            *self._stop(),
            self._start("tool_use", _call_body(call)),
            _event("content_block_delta", index=self._blocks, delta=arguments),
            *self._stop(),
        ]

    def _start(self, kind: str, block: dict[str, Any]) -> Event:
        self._open = kind
        return _event("content_block_start", index=self._blocks, content_block=block)

    def _stop(self) -> list[Event]:
        if self._open is None:
            return []
        self._open = None
        self._blocks += 1
        return [_event("content_block_stop", index=self._blocks - 1)]


def _call_body(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}


def _input(call: ToolCall) -> Any:
    try:
        return json.loads(call.arguments)
    except RecursionError:
        raise EngineError(f"The model's call of {call.name!r:.100} is nested too deeply to be answered with.") from None


def _ending(delta: Delta) -> dict[str, str | None]:
    if delta.finish_reason is FinishReason.STOP and delta.stop_string is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": delta.stop_string}
    reason = _REASONS[delta.finish_reason] if delta.finish_reason is not None else None
    return {"stop_reason": reason, "stop_sequence": None}


def _usage_body(usage: Usage | None) -> dict[str, int]:
    """Anthropic counts cached tokens beside the others, not among them."""
    known = usage or Usage(0, 0)
    return {
        "input_tokens": known.prompt_tokens - known.cached_tokens,
        "cache_read_input_tokens": known.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": known.completion_tokens,
    }


def _event(kind: str, **fields: Any) -> Event:
    return kind, msgspec.json.encode({"type": kind, **fields})
