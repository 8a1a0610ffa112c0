"""The messages of a conversation as callers of the OpenAI API write them."""

from typing import Literal

from msgspec import Struct

from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import ChatMessage, ToolCall


class ContentPart(Struct):
    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Struct):
    name: str
    arguments: str = "{}"


class MessageToolCall(Struct):
    function: FunctionCall
    id: str = ""
    type: Literal["function"] = "function"


class Message(Struct):
    """One message as callers write it; fields that other servers' clients echo back are allowed and dropped."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None

    def as_chat_message(self, index: int) -> ChatMessage:
        """The message for a replica. Raises `InvalidRequest` that names the field of message number `index`."""
        field = f"messages[{index}]"
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise InvalidRequest(f"`{field}.content` is required.", param=f"{field}.content")
        if self.role == "tool" and self.tool_call_id is None:
            raise InvalidRequest(
                f"`{field}.tool_call_id` is required for a tool message.", param=f"{field}.tool_call_id"
            )
        return ChatMessage(
            # "developer" is OpenAI's newer word for the same part; chat templates know "system".
            role="system" if self.role == "developer" else self.role,
            content=_text_of(self.content, field),
            name=self.name,
            tool_calls=tuple(
                ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
                for call in self.tool_calls or ()
            ),
            tool_call_id=self.tool_call_id,
        )


def _text_of(content: str | list[ContentPart] | None, field: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    return "".join(_part_text(part, f"{field}.content[{i}]") for i, part in enumerate(content))


def _part_text(part: ContentPart, where: str) -> str:
    text = part.refusal if part.type == "refusal" else part.text if part.type == "text" else None
    if text is None:
        raise InvalidRequest(
            f"`{where}` has type {part.type!r}; the models of this server take parts of type 'text' with a `text`.",
            param=where,
        )
    return text
