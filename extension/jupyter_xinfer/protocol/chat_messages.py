"""The messages of a conversation as callers of the OpenAI API write them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import ChatImage, ChatMessage, ToolCall

Images = Mapping[tuple[int, int], bytes]
"""The encoded images of messages, by the number of the message and of its part."""
NO_IMAGES: Images = {}


MAX_MESSAGES = 2048
MAX_PARTS = 1024


class ImageUrl(Struct):
    url: str
    detail: Literal["auto", "low", "high", "original"] = "auto"


class ContentPart(Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None

    @property
    def url(self) -> str | None:
        """Of an image; some clients write it without the object around it."""
        return self.image_url.url if isinstance(self.image_url, ImageUrl) else self.image_url


class TranslatedPart(ContentPart):
    """A part that its caller wrote in the manner of another API, and knows as `where`."""

    where: str = ""


def place_of(part: ContentPart, message: int, index: int) -> str:
    """What the caller knows the part by."""
    return (part.where if isinstance(part, TranslatedPart) else "") or f"messages[{message}].content[{index}]"


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
    content: str | Annotated[list[ContentPart], Meta(max_length=MAX_PARTS)] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """vLLM's newer name of `reasoning_content`."""
    refusal: str | None = None
    audio: Any = None
    function_call: Any = None

    def as_chat_message(self, index: int, images: Images = NO_IMAGES) -> ChatMessage:
        """The message for a replica. Raises `InvalidRequest` that names the field of message number `index`."""
        field = f"messages[{index}]"
        for name, instead in (("audio", "the models of this server take text"), ("function_call", "use `tool_calls`")):
            if getattr(self, name) is not None:
                raise InvalidRequest(f"`{field}.{name}` is not supported; {instead}.", param=f"{field}.{name}")
        content = self.refusal if self.content is None else self.content
        if content is None and not (self.role == "assistant" and self.tool_calls):
            raise InvalidRequest(f"`{field}.content` is required.", param=f"{field}.content")
        if self.role == "tool" and self.tool_call_id is None:
            raise InvalidRequest(
                f"`{field}.tool_call_id` is required for a tool message.", param=f"{field}.tool_call_id"
            )
        return ChatMessage(
            # "developer" is OpenAI's newer word for the same part; chat templates know "system".
            role="system" if self.role == "developer" else self.role,
            content=_text_of(content, index, images),
            reasoning=(self.reasoning_content or self.reasoning) if self.role == "assistant" else None,
            name=self.name,
            tool_calls=tuple(
                ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
                for call in self.tool_calls or ()
            ),
            tool_call_id=self.tool_call_id,
            images=_images_of(content, index, images),
        )


def _text_of(content: str | list[ContentPart] | None, message: int, images: Images) -> str | None:
    if content is None or isinstance(content, str):
        return content
    return "".join(
        _part_text(part, place_of(part, message, i)) for i, part in enumerate(content) if (message, i) not in images
    )


def _images_of(content: str | list[ContentPart] | None, message: int, images: Images) -> tuple[ChatImage, ...]:
    found: list[ChatImage] = []
    offset = 0
    for i, part in enumerate(content if isinstance(content, list) else ()):
        if (message, i) in images:
            found.append(ChatImage(images[message, i], offset, place_of(part, message, i)))
        else:
            offset += len(_part_text(part, place_of(part, message, i)))
    return tuple(found)


def _part_text(part: ContentPart, where: str) -> str:
    text = part.refusal if part.type == "refusal" else part.text if part.type == "text" else None
    if text is None:
        raise InvalidRequest(
            f"`{where}` has type {part.type!r}; the models of this server take parts of type 'text' with a `text`.",
            param=where,
        )
    return text
