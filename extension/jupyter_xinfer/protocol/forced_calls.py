"""Reads the output of a model that was made to call tools: one JSON object per line (`tools.py` has the constraint)."""

import json
import secrets

from msgspec.structs import replace

from xinfer_runtime.messages import Delta, FinishReason, ToolCall


class ForcedCalls:
    """Turns the text of one choice into tool calls, as soon as each is complete."""

    def __init__(self) -> None:
        self._pending = ""
        self._calls = 0

    def apply(self, delta: Delta) -> Delta:
        """`delta` with calls where it has text. Text is left over only where the output was cut off in a call."""
        self._pending += delta.text
        calls = []
        # An object is complete at a closing brace only; reading at every token would cost the square of the length.
        while "}" in delta.text and (found := self._next()) is not None:
            calls.append(found)
        self._calls += len(calls)
        reason = delta.finish_reason
        if reason is FinishReason.STOP and self._calls:
            reason = FinishReason.TOOL_CALLS
        left = self._pending if delta.last else ""
        return replace(delta, text=left, tool_calls=(*delta.tool_calls, *calls), finish_reason=reason)

    def _next(self) -> ToolCall | None:
        text = self._pending.lstrip()
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return None
        self._pending = text[end:].lstrip()
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return None
        arguments = json.dumps(value.get("arguments", {}), ensure_ascii=False)
        return ToolCall(id=f"call_{secrets.token_hex(12)}", name=value["name"], arguments=arguments)
