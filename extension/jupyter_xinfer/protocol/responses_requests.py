"""OpenAI's Responses API: what a caller sends, as the chat request that it means."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct

from jupyter_xinfer.protocol.chat_messages import (
    MAX_MESSAGES,
    ContentPart,
    FunctionCall,
    Message,
    MessageToolCall,
    TranslatedPart,
)
from jupyter_xinfer.protocol.openai_requests import ChatRequest
from jupyter_xinfer.protocol.sampling_fields import PlainStreamOptions, PositiveInt, Probability, Temperature
from jupyter_xinfer.protocol.structured_output import JsonSchemaFormat, ResponseFormat, schema_constraint
from jupyter_xinfer.protocol.tools import (
    AllowedChoice,
    AllowedTool,
    AllowedTools,
    FunctionTool,
    NamedChoice,
    NamedFunction,
    Tool,
    ToolChoice,
)
from xinfer_runtime.errors import InvalidRequest


class InputItem(Struct):
    """A message, a call that the model made, its result, or thoughts that are carried along."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["user", "assistant", "system", "developer"] = "user"
    content: str | list[ContentPart] | None = None
    name: str = ""
    arguments: str = "{}"
    call_id: str = ""
    output: str | list[ContentPart] = ""
    summary: list[ContentPart] | None = None

    def as_message(self, where: str) -> Message:
        """The message of the item that is at `where`. Raises `InvalidRequest` that names its field."""
        if self.type == "message":
            if self.content is None:
                raise InvalidRequest(f"`{where}.content` is required.", param=f"{where}.content")
            return Message(role=self.role, content=_plain(self.content, f"{where}.content"))
        if self.type in ("function_call", "function_call_output") and not self.call_id:
            raise InvalidRequest(f"`{where}.call_id` is required.", param=f"{where}.call_id")
        if self.type == "function_call":
            call = MessageToolCall(FunctionCall(self.name, self.arguments), id=self.call_id)
            return Message(role="assistant", tool_calls=[call])
        if self.type == "function_call_output":
            return Message(role="tool", content=_plain(self.output, f"{where}.output"), tool_call_id=self.call_id)
        parts = self.content if isinstance(self.content, list) and self.content else self.summary or []
        thoughts = "\n".join(part.text for part in parts if part.text)
        return Message(role="assistant", reasoning_content=thoughts)


def _plain(content: str | list[ContentPart], where: str) -> str | list[ContentPart]:
    """Parts under the names that chat has for them."""
    if isinstance(content, str):
        return content
    return [_plain_part(part, f"{where}[{i}]") for i, part in enumerate(content)]


def _plain_part(part: ContentPart, where: str) -> ContentPart:
    if part.type == "input_image":
        return TranslatedPart("image_url", image_url=part.image_url, where=where)
    text = part.refusal if part.type == "refusal" else part.text
    if text is None or part.type not in ("input_text", "output_text", "text", "refusal"):
        raise InvalidRequest(
            f"`{where}` has type {part.type!r}; the models of this server take parts of type 'input_text' with a "
            "`text`.",
            param=where,
        )
    return ContentPart("text", text)


class ResponseTool(Struct):
    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedTool(Struct, tag_field="type", tag="function"):
    name: str

    def as_chat(self) -> ToolChoice:
        return NamedChoice(NamedFunction(self.name))


class AllowedName(Struct):
    type: Literal["function"]
    name: str


class AllowedNames(Struct, tag_field="type", tag="allowed_tools"):
    """Some of the tools, in place of all of them."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedName], Meta(min_length=1)]

    def as_chat(self) -> ToolChoice:
        tools = [AllowedTool("function", NamedFunction(tool.name)) for tool in self.tools]
        return AllowedChoice(AllowedTools(self.mode, tools))


class TextFormat(Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = "output"
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(Struct, forbid_unknown_fields=True):
    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(Struct, forbid_unknown_fields=True):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """The former name of `summary`."""
    # Which thoughts of earlier turns the model sees is its template's to say.
    context: Literal["auto", "current_turn"] | None = None
    mode: Literal["standard"] | None = None


class ResponsesRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1)]
    input: str | Annotated[list[InputItem], Meta(min_length=1, max_length=MAX_MESSAGES)]
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: PositiveInt | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedNames | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: PlainStreamOptions | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    truncation: str | None = None
    include: list[str] | None = None
    background: bool | None = None
    top_logprobs: int | None = None
    max_tool_calls: int | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None
    conversation: Any = None
    context_management: Any = None
    moderation: Any = None
    prompt: Any = None

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "service_tier": ("auto", "default"),
        "truncation": ("disabled",),
        # What clients of reasoning models ask for by default; there is nothing encrypted to include.
        "include": ([], ["reasoning.encrypted_content"]),
        "background": (False,),
        "top_logprobs": (0,),
        "max_tool_calls": (),
        "prompt_cache_retention": ("in_memory", "in-memory"),
        "prompt_cache_options": (),
        "conversation": (),
        "context_management": (),
        "moderation": (),
        "prompt": (),
    }
    """Documented parameters that are refused, and the values of them that ask for what the server does anyway."""

    def messages(self) -> list[Message]:
        """The messages of this request alone, without its instructions."""
        if isinstance(self.input, str):
            return [Message(role="user", content=self.input)]
        return _merged([item.as_message(f"input[{i}]") for i, item in enumerate(self.input)])

    def as_chat(self, history: Sequence[Message]) -> ChatRequest:
        """The chat request after `history`, the messages of earlier responses. Raises `InvalidRequest`."""
        for name, harmless in self.unsupported.items():
            value = getattr(self, name)
            if value is not None and value not in harmless:
                raise InvalidRequest(f"`{name}` is not supported by this server.", param=name)
        if self.text is not None and self.text.verbosity not in (None, "medium"):
            raise InvalidRequest(
                "`text.verbosity` is not supported other than 'medium'; ask for it in `instructions`.",
                param="text.verbosity",
            )
        self._refuse_summaries()
        system = [Message(role="system", content=self.instructions)] if self.instructions else []
        return ChatRequest(
            model=self.model,
            messages=[*system, *history, *self.messages()],
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            tools=self._tools(),
            tool_choice=self._choice(),
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=self._format(),
            reasoning_effort=self.reasoning.effort if self.reasoning is not None else None,
        )

    @property
    def summarises(self) -> bool:
        """Whether thoughts are to come as their own summary."""
        return self.reasoning is not None and "auto" in (self.reasoning.summary, self.reasoning.generate_summary)

    def _refuse_summaries(self) -> None:
        for name in ("summary", "generate_summary"):
            wanted = getattr(self.reasoning, name, None)
            if wanted not in (None, "auto"):
                raise InvalidRequest(
                    f"`reasoning.{name}` is not supported other than 'auto', with which thoughts come unabridged as "
                    "their summary: this server writes none.",
                    param=f"reasoning.{name}",
                )

    def _choice(self) -> ToolChoice | None:
        if isinstance(self.tool_choice, NamedTool | AllowedNames):
            return self.tool_choice.as_chat()
        # Clients that offer no tools say "auto" all the same.
        return self.tool_choice if self.tools or self.tool_choice == "required" else None

    def _tools(self) -> list[Tool] | None:
        for i, tool in enumerate(self.tools or ()):
            if tool.type != "function" or not tool.name:
                raise InvalidRequest(
                    f"`tools[{i}]` has type {tool.type!r}; this server runs no tools of its own and takes functions.",
                    param=f"tools[{i}]",
                )
        functions = [FunctionTool(t.name, t.description, t.parameters, t.strict) for t in self.tools or ()]
        return [Tool("function", function) for function in functions] or None

    def _format(self) -> ResponseFormat | None:
        wanted = self.text.format if self.text is not None else None
        if wanted is None:
            return None
        if wanted.type != "json_schema":
            return ResponseFormat(wanted.type)
        if wanted.schema is None:
            raise InvalidRequest("`text.format.schema` is required.", param="text.format.schema")
        schema_constraint(wanted.schema, "text.format.schema")  # Refused by the name that its caller knows.
        return ResponseFormat("json_schema", JsonSchemaFormat(wanted.name, wanted.schema))


def _merged(messages: list[Message]) -> list[Message]:
    """Thoughts, an answer and calls that follow one another are one turn of the assistant."""
    turns: list[Message] = []
    thoughts: list[str] = []
    for message in messages:
        if message.role == "assistant" and message.content is None and not message.tool_calls:
            thoughts.append(message.reasoning_content or "")
            continue
        last = turns[-1] if turns else None
        if message.tool_calls and last is not None and last.role == "assistant":
            last.tool_calls = [*(last.tool_calls or ()), *message.tool_calls]
        else:
            turns.append(message)
        # Thoughts without anything that was said after them are those of nobody's turn.
        if thoughts and message.role == "assistant":
            turns[-1].reasoning_content = "\n".join(filter(None, (turns[-1].reasoning_content, *thoughts)))
        thoughts = []
    return turns
