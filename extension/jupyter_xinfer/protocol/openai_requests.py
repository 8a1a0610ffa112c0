"""OpenAI's chat and completion requests, and what they mean to a replica.

A documented parameter either works or is refused by name; none is silently ignored. Parameters that only describe the
caller (`user`, `metadata`, ...) are accepted and have no effect on the output by definition.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import ChatMessage, GenerateRequest, SamplingParams, ToolCall

Temperature = Annotated[float, Meta(ge=0, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
PositiveInt = Annotated[int, Meta(ge=1)]
# llama.cpp and PyTorch generators take 64-bit seeds; OpenAI documents signed 64 bit.
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
MAX_STOP_STRINGS = 16


class StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: bool = False


class ResponseFormat(Struct):
    type: str


class SamplingFields(Struct, kw_only=True, forbid_unknown_fields=True):
    """What chat and text completions have in common."""

    model: Annotated[str, Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: PositiveInt | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    n: int | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None

    def sampling(self, max_tokens: int | None) -> SamplingParams:
        if self.n not in (None, 1):
            raise InvalidRequest("`n` must be 1: this server makes one choice per request.", param="n")
        if self.logit_bias:
            raise InvalidRequest("`logit_bias` is not supported by this server.", param="logit_bias")
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("`stream_options` is only allowed when `stream` is true.", param="stream_options")
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            seed=self.seed,
            max_tokens=max_tokens,
            stop=self._stop_strings(),
            ignore_eos=bool(self.ignore_eos),
        )

    def _stop_strings(self) -> tuple[str, ...]:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > MAX_STOP_STRINGS:
            raise InvalidRequest(f"`stop` takes at most {MAX_STOP_STRINGS} strings.", param="stop")
        if any(not text for text in stop):
            raise InvalidRequest("`stop` must not hold an empty string.", param="stop")
        return tuple(stop)


class ContentPart(Struct):
    type: str
    text: str | None = None


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
    for i, part in enumerate(content):
        if part.type != "text" or part.text is None:
            where = f"{field}.content[{i}]"
            raise InvalidRequest(
                f"`{where}` has type {part.type!r}; the models of this server take parts of type 'text' with a `text`.",
                param=where,
            )
    return "".join(part.text or "" for part in content)


class FunctionTool(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct):
    type: Literal["function"]
    function: FunctionTool


class ChatRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: PositiveInt | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    def to_generate(self, request_id: str) -> GenerateRequest:
        """The request for a replica. Raises `InvalidRequest` for what this server cannot do."""
        if self.logprobs or self.top_logprobs:
            raise InvalidRequest("`logprobs` are not supported by this server.", param="logprobs")
        if self.response_format is not None and self.response_format.type != "text":
            raise InvalidRequest(
                f"`response_format` of type {self.response_format.type!r} is not supported by this server; use 'text'.",
                param="response_format",
            )
        tools = self._tools()
        return GenerateRequest(
            id=request_id,
            messages=tuple(message.as_chat_message(i) for i, message in enumerate(self.messages)),
            tools=tools,
            parse_tool_calls=bool(tools),
            template_kwargs=self._template_kwargs(),
            sampling=self.sampling(self.max_completion_tokens or self.max_tokens),
        )

    def _tools(self) -> tuple[dict[str, Any], ...]:
        choice = self.tool_choice
        if choice not in (None, "auto", "none"):
            raise InvalidRequest(
                "`tool_choice` can be 'auto' or 'none'; this server cannot force a call.", param="tool_choice"
            )
        if choice is not None and not self.tools:
            raise InvalidRequest("`tool_choice` is only allowed together with `tools`.", param="tool_choice")
        if choice == "none" or not self.tools:
            return ()
        if self.parallel_tool_calls is False:
            raise InvalidRequest(
                "`parallel_tool_calls` cannot be false: this server does not limit the number of calls.",
                param="parallel_tool_calls",
            )
        return tuple(
            {
                "type": "function",
                "function": {
                    "name": tool.function.name,
                    "description": tool.function.description or "",
                    "parameters": tool.function.parameters or {"type": "object", "properties": {}},
                },
            }
            for tool in self.tools
        )

    def _template_kwargs(self) -> dict[str, Any]:
        kwargs = dict(self.chat_template_kwargs or {})
        if self.enable_thinking is not None:
            kwargs.setdefault("enable_thinking", self.enable_thinking)
        return kwargs


class CompletionRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    prompt: str | list[str | int | list[int]]
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: int | None = None

    def to_generate(self, request_id: str) -> GenerateRequest:
        """The request for a replica. Raises `InvalidRequest` for what this server cannot do."""
        for name, value in (("echo", self.echo), ("suffix", self.suffix), ("logprobs", self.logprobs)):
            if value:
                raise InvalidRequest(f"`{name}` is not supported by this server.", param=name)
        if self.best_of not in (None, 1):
            raise InvalidRequest("`best_of` must be 1: this server makes one choice per request.", param="best_of")
        prompt, token_ids = self._prompt()
        # OpenAI documents 16 as the default of text completions.
        return GenerateRequest(
            id=request_id, prompt=prompt, token_ids=token_ids, sampling=self.sampling(self.max_tokens or 16)
        )

    def _prompt(self) -> tuple[str | None, tuple[int, ...] | None]:
        prompt = self.prompt
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
            prompt = prompt[0]
        if isinstance(prompt, str):
            return prompt, None
        ids = prompt[0] if len(prompt) == 1 and isinstance(prompt[0], list) else prompt
        token_ids = tuple(i for i in ids if isinstance(i, int))
        if token_ids and len(token_ids) == len(ids):
            return None, token_ids
        raise InvalidRequest(
            "`prompt` must be one string or one list of token ids; send a request per prompt.", param="prompt"
        )
