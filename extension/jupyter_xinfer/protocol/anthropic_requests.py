"""Anthropic's Messages API: what a caller sends, as the chat request that it means."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct

from jupyter_xinfer.protocol.chat_messages import (
    MAX_MESSAGES,
    MAX_PARTS,
    ContentPart,
    FunctionCall,
    Message,
    MessageToolCall,
    TranslatedPart,
)
from jupyter_xinfer.protocol.openai_requests import ChatRequest
from jupyter_xinfer.protocol.sampling_fields import MAX_STOP_LENGTH, MAX_STOP_STRINGS, PositiveInt, Probability
from jupyter_xinfer.protocol.structured_output import JsonSchemaFormat, ResponseFormat, schema_constraint
from jupyter_xinfer.protocol.tools import FunctionTool, NamedChoice, NamedFunction, Tool, ToolChoice
from xinfer_runtime.errors import InvalidRequest

StopSequences = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]], Meta(max_length=MAX_STOP_STRINGS)
]


class ImageSource(Struct):
    """An image in Base64, or where it is."""

    type: Literal["base64", "url"]
    media_type: str = ""
    data: str = ""
    url: str = ""

    def as_url(self) -> str:
        return self.url if self.type == "url" else f"data:{self.media_type};base64,{self.data}"


class Block(Struct):
    """A content block: text, an image, a call of a tool, its result, or thoughts of an earlier turn."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] = msgspec.field(default_factory=dict)
    tool_use_id: str = ""
    thinking: str = ""
    content: "str | list[Block] | None" = None
    source: ImageSource | None = None


class AnthropicMessage(Struct):
    role: Literal["user", "assistant"]
    content: str | Annotated[list[Block], Meta(max_length=MAX_PARTS)]

    def as_messages(self, field: str) -> list[Message]:
        """Results of tools are messages of their own in chat, before what the user says beside them."""
        if isinstance(self.content, str):
            return [Message(role=self.role, content=self.content)]
        texts: list[str] = []
        parts: list[ContentPart] = []
        thoughts: list[str] = []
        calls: list[MessageToolCall] = []
        results: list[Message] = []
        for i, block in enumerate(self.content):
            where = f"{field}.content[{i}]"
            if block.type == "text":
                texts.append(block.text)
                parts.append(TranslatedPart("text", block.text, where=where))
            elif block.type == "image" and block.source is not None and self.role == "user":
                parts.append(TranslatedPart("image_url", image_url=block.source.as_url(), where=where))
            elif block.type == "tool_use" and self.role == "assistant":
                calls.append(MessageToolCall(FunctionCall(block.name, json.dumps(block.input)), id=block.id))
            elif block.type == "tool_result" and self.role == "user":
                text = _text(block.content, where)
                results.append(Message(role="tool", content=text, tool_call_id=block.tool_use_id))
            elif block.type == "thinking" and self.role == "assistant":
                thoughts.append(block.thinking)
            elif block.type != "redacted_thinking":
                raise InvalidRequest(f"`{where}` has type {block.type!r}, which this server cannot take.", param=where)
        if calls or self.role == "assistant":
            reasoning = "\n".join(thoughts) or None
            said = Message("assistant", "".join(texts), tool_calls=calls or None, reasoning_content=reasoning)
            return [said]
        said_in_text = len(parts) == len(texts)
        content = "".join(texts) if said_in_text else parts
        asked = [Message(role="user", content=content)] if parts or not results else []
        return [*results, *asked]


def _text(content: str | Sequence[Block] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for i, block in enumerate(content):
        if block.type != "text":
            inside = f"{where}.content[{i}]"
            raise InvalidRequest(f"`{inside}` has type {block.type!r}; this server takes 'text'.", param=inside)
    return "".join(block.text for block in content)


class AnthropicTool(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    type: str | None = None
    strict: bool | None = None


class AnthropicToolChoice(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool = False


class Thinking(Struct):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: PositiveInt | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Struct, forbid_unknown_fields=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct, forbid_unknown_fields=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None

    def response_format(self) -> ResponseFormat | None:
        if self.format is None:
            return None
        schema_constraint(
            self.format.schema, "output_config.format.schema"
        )  # Refused by the name that its caller knows.
        return ResponseFormat("json_schema", JsonSchemaFormat("output", self.format.schema))


class CountTokensRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """What the prompt is made of."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[Block] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: Thinking | None = None
    cache_control: Any = None
    """Prompts are cached without asking."""
    output_config: OutputConfig | None = None
    mcp_servers: Any = None
    context_management: Any = None

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "mcp_servers": ([],),
        "context_management": (),
    }
    """Documented parameters that are refused, and the values of them that ask for what the server does anyway."""

    def as_chat(self) -> ChatRequest:
        """The chat request that this means. Raises `InvalidRequest` for what this server cannot do."""
        for name, harmless in self.unsupported.items():
            value = getattr(self, name)
            if value is not None and value not in harmless:
                raise InvalidRequest(f"`{name}` is not supported by this server.", param=name)
        system = [Message(role="system", content=_text(self.system, "system"))] if self.system else []
        turns = [each for i, message in enumerate(self.messages) for each in message.as_messages(f"messages[{i}]")]
        choice, parallel = self._choice()
        output = self.output_config or OutputConfig()
        return ChatRequest(
            model=self.model,
            messages=[*system, *turns],
            tools=self._tools(),
            tool_choice=choice,
            parallel_tool_calls=parallel,
            response_format=output.response_format(),
            reasoning_effort=output.effort,
            enable_thinking=self.thinking.type != "disabled" if self.thinking is not None else None,
            thinking_budget=self._thinking_budget(),
        )

    @property
    def shows_thoughts(self) -> bool:
        return self.thinking is None or self.thinking.display != "omitted"

    def _thinking_budget(self) -> int | None:
        thinking = self.thinking
        if thinking is None or thinking.budget_tokens is None:
            return None
        if thinking.type != "enabled":
            raise InvalidRequest(
                f"`thinking.budget_tokens` does not belong to the type {thinking.type!r}.",
                param="thinking.budget_tokens",
            )
        return thinking.budget_tokens

    def _tools(self) -> list[Tool] | None:
        for i, tool in enumerate(self.tools or ()):
            if tool.type not in (None, "custom"):
                raise InvalidRequest(
                    f"`tools[{i}]` has type {tool.type!r}; this server runs no tools of its own.", param=f"tools[{i}]"
                )
        functions = [FunctionTool(t.name, t.description, t.input_schema, t.strict) for t in self.tools or ()]
        return [Tool("function", function) for function in functions] or None

    def _choice(self) -> tuple[ToolChoice | None, bool | None]:
        given = self.tool_choice
        if given is None:
            return None, None
        parallel = False if given.disable_parallel_tool_use else None
        if given.type == "tool":
            return NamedChoice(NamedFunction(given.name)), None
        if given.type == "any":
            return "required", parallel
        return given.type, parallel


class MessagesRequest(CountTokensRequest, kw_only=True, forbid_unknown_fields=True):
    max_tokens: PositiveInt
    stream: bool | None = None
    temperature: Probability | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    stop_sequences: StopSequences | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    container: Any = None
    inference_geo: Any = None

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **CountTokensRequest.unsupported,
        "service_tier": ("auto", "standard_only"),
        "container": (),
        "inference_geo": (),
    }

    def as_chat(self) -> ChatRequest:
        chat = super().as_chat()
        if chat.thinking_budget is not None and chat.thinking_budget >= self.max_tokens:
            raise InvalidRequest(
                "`thinking.budget_tokens` must be less than `max_tokens`, of which thoughts are a part.",
                param="thinking.budget_tokens",
            )
        chat.max_tokens = self.max_tokens
        chat.temperature = self.temperature
        chat.top_p = self.top_p
        chat.top_k = self.top_k
        chat.stop = self.stop_sequences
        return chat
