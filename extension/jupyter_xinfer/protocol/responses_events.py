"""The bodies and the stream's events of OpenAI's Responses API."""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jupyter_xinfer.protocol.chat_messages import FunctionCall, Message, MessageToolCall
from jupyter_xinfer.protocol.forced_calls import ForcedCalls
from jupyter_xinfer.protocol.openai_responses import Encoder, Event
from jupyter_xinfer.protocol.responses_requests import ResponsesRequest, ResponseTool
from xinfer_runtime.errors import XinferError
from xinfer_runtime.messages import Delta, FinishReason, ToolCall, Usage

Item = dict[str, Any]


class ResponsesEncoder(Encoder):
    """One response. Its output is built up item by item, so that a stream's last event equals the whole body.

    `finished` is called with what the model said, before the last event is sent.
    """

    def __init__(
        self, response_id: str, body: ResponsesRequest, finished: Callable[[Message], None], *, forced_calls: bool
    ) -> None:
        self.id = response_id
        self.created = int(time.time())
        self._body = body
        self._summarises = body.summarises
        self._finished = finished
        self._reader = ForcedCalls() if forced_calls else None
        self._items: list[Item] = []
        self._open: Item | None = None
        """The item that is being written, the last of `_items`: thoughts or the answer."""
        self._sequence = 0
        self._started = False
        self._status = "in_progress"
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._error: XinferError | None = None

    def _turn(self) -> Message:
        """What the model said, as the message that goes before the next one of this conversation."""
        text = "".join(item["content"][0]["text"] for item in self._items if item["type"] == "message")
        thoughts = "\n".join(self._part(item)["text"] for item in self._items if item["type"] == "reasoning")
        calls = [
            MessageToolCall(FunctionCall(item["name"], item["arguments"]), id=item["call_id"])
            for item in self._items
            if item["type"] == "function_call"
        ]
        return Message(role="assistant", content=text, tool_calls=calls or None, reasoning_content=thoughts or None)

    def whole(self, deltas: Sequence[Delta]) -> bytes:
        self.chunks(0, deltas[0])
        return msgspec.json.encode(self.response())

    def chunks(self, index: int, delta: Delta) -> list[Event]:
        events = self._start()
        if self._reader is not None:
            delta = self._reader.apply(delta)
        if delta.reasoning:
            events += self._write("reasoning", delta.reasoning)
        if delta.text:
            events += self._write("message", delta.text)
        for call in delta.tool_calls:
            events += self._close_item() + self._call(call)
        if delta.finish_reason is not None:
            events += self._finish(delta)
        return events

    def failed(self, error: XinferError) -> list[Event]:
        self._status, self._error = "failed", error
        return [*self._start(), self._event("response.failed", response=self.response())]

    def response(self) -> dict[str, Any]:
        """OpenAI's response object as it is now."""
        body = self._body
        error = self._error
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(time.time()) if self._status == "completed" else None,
            "status": self._status,
            "background": False,
            "error": {"code": "server_error", "message": error.message} if error is not None else None,
            "incomplete_details": {"reason": self._reason} if self._reason is not None else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": body.model,
            "output": self._items,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {
                "effort": body.reasoning.effort if body.reasoning is not None else None,
                "summary": "auto" if body.summarises else None,
            },
            "store": body.store is not False,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": _text_format(body)},
            "tool_choice": body.tool_choice or "auto",
            "tools": [_tool_body(tool) for tool in body.tools or ()],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": _usage_body(self._usage) if self._usage is not None else None,
            # OpenAI's schema knows no null here.
            **({"user": body.user} if body.user is not None else {}),
            "metadata": body.metadata or {},
        }

    def _start(self) -> list[Event]:
        if self._started:
            return []
        self._started = True
        return [
            self._event("response.created", response=self.response()),
            self._event("response.in_progress", response=self.response()),
        ]

    def _write(self, kind: str, text: str) -> list[Event]:
        """More text of an item of this kind, which begins one unless it is open."""
        events: list[Event] = []
        if self._open is None or self._open["type"] != kind:
            events = self._close_item() + self._open_item(kind)
        item = self._open
        assert item is not None
        self._part(item)["text"] += text
        return [*events, self._event(f"response.{self._told_as(item)}.delta", **self._place(item), delta=text)]

    def _open_item(self, kind: str) -> list[Event]:
        item: Item
        if kind == "reasoning":
            item = {"id": f"rs_{uuid.uuid4().hex}", "type": "reasoning", "summary": [], "content": []}
        else:
            item = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "content": []}
        item["status"] = "in_progress"
        self._items.append(item)
        events: list[Event] = [self._event("response.output_item.added", output_index=len(self._items) - 1, item=item)]
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        if kind == "reasoning":
            part = {"type": "summary_text" if self._summarises else "reasoning_text", "text": ""}
        item["summary" if part["type"] == "summary_text" else "content"].append(part)
        self._open = item
        return [*events, self._part_event(item, "added")]

    def _close_item(self) -> list[Event]:
        item, self._open = self._open, None
        if item is None:
            return []
        item["status"] = "completed"
        return [
            self._event(f"response.{self._told_as(item)}.done", **self._place(item), text=self._part(item)["text"]),
            self._part_event(item, "done"),
            self._event("response.output_item.done", output_index=len(self._items) - 1, item=item),
        ]

    def _part(self, item: Item) -> dict[str, Any]:
        """The one part of an item with text."""
        part: dict[str, Any] = (item["content"] or item["summary"])[0]
        return part

    def _told_as(self, item: Item) -> str:
        """What the events of an item's text are called."""
        kind: str = self._part(item)["type"]
        return "reasoning_summary_text" if kind == "summary_text" else kind

    def _place(self, item: Item) -> dict[str, Any]:
        """Where the text of an item is, as the events of that text say it."""
        kind = self._part(item)["type"]
        index = {"summary_index" if kind == "summary_text" else "content_index": 0}
        return {**self._where(item), **index, **({"logprobs": []} if kind == "output_text" else {})}

    def _part_event(self, item: Item, what: str) -> Event:
        part = self._part(item)
        summary = part["type"] == "summary_text"
        name, index = ("reasoning_summary_part", "summary_index") if summary else ("content_part", "content_index")
        return self._event(f"response.{name}.{what}", **self._where(item), **{index: 0}, part=part)

    def _call(self, call: ToolCall) -> list[Event]:
        item = {
            "id": f"fc_{uuid.uuid4().hex}",
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": "",
            "status": "in_progress",
        }
        self._items.append(item)
        where = self._where(item)
        index = where["output_index"]
        added = self._event("response.output_item.added", output_index=index, item=item)
        item["arguments"], item["status"] = call.arguments, "completed"
        named = {**where, "name": call.name, "arguments": call.arguments}
        return [
            added,
            self._event("response.function_call_arguments.delta", **where, delta=call.arguments),
            self._event("response.function_call_arguments.done", **named),
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    def _finish(self, delta: Delta) -> list[Event]:
        events = self._close_item()
        cut_off = delta.finish_reason is FinishReason.LENGTH
        self._usage = delta.usage
        self._status = "incomplete" if cut_off else "completed"
        self._reason = "max_output_tokens" if cut_off else None
        self._finished(self._turn())
        return [*events, self._event(f"response.{self._status}", response=self.response())]

    def _where(self, item: Item) -> dict[str, Any]:
        return {"item_id": item["id"], "output_index": len(self._items) - 1}

    def _event(self, kind: str, **fields: Any) -> Event:
        data = msgspec.json.encode({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return kind, data


def _usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _tool_body(tool: ResponseTool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict is True,
    }


def _text_format(body: ResponsesRequest) -> dict[str, Any]:
    wanted = body.text.format if body.text is not None else None
    if wanted is None or wanted.type != "json_schema":
        return {"type": wanted.type if wanted is not None else "text"}
    return {"type": "json_schema", "name": wanted.name, "schema": wanted.schema or {}, "strict": wanted.strict}
