"""OpenAI's chat and completion requests, and what they mean to a replica.

A documented parameter either works or is refused by name; none is silently ignored. Parameters that only describe the
caller or the billing (`user`, `metadata`, `safety_identifier`, ...) have no effect on the output by definition.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from jupyter_xinfer.protocol.chat_messages import MAX_MESSAGES, NO_IMAGES, Images, Message
from jupyter_xinfer.protocol.fan_out import fan_out
from jupyter_xinfer.protocol.sampling_fields import PositiveInt, SamplingFields, TokenId
from jupyter_xinfer.protocol.structured_output import ResponseFormat, constraining_field, constraint_of
from jupyter_xinfer.protocol.tools import OfferedTools, Tool, ToolChoice, offered_tools
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Constraint, ConstraintKind, GenerateRequest, Priority

MAX_PROMPTS = 128
DEFAULT_COMPLETION_TOKENS = 16


class ChatRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: PositiveInt | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    enable_thinking: bool | None = None
    thinking_budget: Annotated[int, Meta(ge=0)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    modalities: list[str] | None = None
    verbosity: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None
    web_search_options: Any = None
    audio: Any = None
    moderation: Any = None
    prediction: Any = None
    function_call: Any = None
    functions: Any = None

    unsupported: ClassVar[Mapping[str, str]] = {
        "service_tier": " other than 'auto', 'default' and 'flex'",
        "store": ": it keeps no outputs",
        "modalities": " other than ['text']",
        "verbosity": " other than 'medium'; ask for it in the messages",
        "prompt_cache_retention": " other than 'in_memory'",
        "prompt_cache_options": "; prompts are cached without asking",
        "web_search_options": "; offer a search function in `tools`",
        "audio": "",
        "moderation": "",
        "prediction": "",
        "function_call": "; use `tool_choice`",
        "functions": "; use `tools`",
    }
    harmless: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "service_tier": ("auto", "default", "flex"),
        "store": (False,),
        "modalities": (["text"],),
        "verbosity": ("medium",),
        "prompt_cache_retention": ("in_memory", "in-memory"),
    }

    def requests(self, request_id: str, images: Images = NO_IMAGES) -> list[GenerateRequest]:
        """The engines' requests, one per choice. Raises `InvalidRequest` for what this server cannot do."""
        return fan_out([self.to_generate(request_id, images)], self.n or 1)

    def to_generate(self, request_id: str, images: Images = NO_IMAGES) -> GenerateRequest:
        """The engine's request for one choice."""
        self.refuse_unsupported()
        if self.max_tokens == 0:
            raise InvalidRequest("`max_tokens` must be at least 1.", param="max_tokens")
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("`top_logprobs` is only allowed when `logprobs` is true.", param="top_logprobs")
        tools = self.offered_tools()
        constraint = constraint_of(self, self.response_format)
        if tools.constraint is not None and constraint is not None:
            raise InvalidRequest(
                "`tool_choice` cannot require a call where the output must have a form of its own.", param="tool_choice"
            )
        _refuse_two_grammars(self.tools or (), tools, constraint)
        constraint = tools.constraint or constraint
        return GenerateRequest(
            id=request_id,
            messages=tuple(message.as_chat_message(i, images) for i, message in enumerate(self.messages)),
            tools=tools.for_template,
            parse_tool_calls=bool(tools.functions) and tools.constraint is None,
            one_call=self.parallel_tool_calls is False,
            template_kwargs=self._template_kwargs(thinks=constraint is None),
            thinking_budget=self.thinking_budget,
            constraint=constraint,
            lora=self.lora_name,
            priority=self.wanted_priority() or Priority.INTERACTIVE,
            timeout=self.timeout,
            sampling=self.sampling(
                self.max_completion_tokens or self.max_tokens, (self.top_logprobs or 0) if self.logprobs else None
            ),
        )

    def wanted_priority(self) -> Priority | None:
        """OpenAI's flex tier is for requests that may wait."""
        return Priority.BATCH if self.service_tier == "flex" else self.priority

    def own_names(self) -> dict[str, str]:
        """What engines call fields of this request, and what its caller calls them."""
        constraint = "tools" if self.binds_calls_alone() else constraining_field(self)
        return {"response_format": constraint, "template_kwargs": "chat_template_kwargs"}

    def binds_calls_alone(self) -> bool:
        """Whether nothing but tools may constrain the output."""
        return bool(self.tools) and constraint_of(self, self.response_format) is None

    def offered_tools(self) -> OfferedTools:
        return offered_tools(self.tools, self.tool_choice, self.parallel_tool_calls)

    def _template_kwargs(self, *, thinks: bool) -> dict[str, Any]:
        kwargs = dict(self.chat_template_kwargs or {})
        if self.reasoning_effort is not None:
            kwargs.setdefault("reasoning_effort", self.reasoning_effort)
        if self.enable_thinking is not None:
            kwargs.setdefault("enable_thinking", self.enable_thinking)
        elif self.reasoning_effort == "none" or not thinks:
            # A constraint holds from the first token, so there is no room for thoughts before it.
            kwargs.setdefault("enable_thinking", False)
        return kwargs


def _refuse_two_grammars(tools: Sequence[Tool], offered: OfferedTools, constraint: Constraint | None) -> None:
    """A grammar is taken as that of the whole output, calls included."""
    if constraint is None or constraint.kind is not ConstraintKind.GRAMMAR:
        return
    for i, tool in enumerate(tools):
        if tool.function.strict and tool.function in offered.functions:
            raise InvalidRequest(
                f"`tools[{i}].function.strict` cannot be combined with `guided_grammar`.",
                param=f"tools[{i}].function.strict",
            )


class CompletionRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    prompt: str | list[str | TokenId | list[TokenId]]
    best_of: Annotated[int, Meta(ge=1, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None

    def requests(self, request_id: str) -> list[GenerateRequest]:
        """The engines' requests, one per choice. Raises `InvalidRequest` for what this server cannot do."""
        if self.candidates < (self.n or 1):
            raise InvalidRequest("`best_of` must be at least `n`.", param="best_of")
        if self.candidates > (self.n or 1) and self.stream:
            raise InvalidRequest("`best_of` above `n` cannot be streamed: all have to be compared.", param="best_of")
        if self.echo and self.logprobs is not None:
            raise InvalidRequest("`echo` cannot be combined with `logprobs` on this server.", param="echo")
        max_tokens = DEFAULT_COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens
        # Candidates are compared by their log probabilities.
        logprobs = self.logprobs if self.candidates == (self.n or 1) else self.logprobs or 0
        sampling, constraint = self.sampling(max_tokens, logprobs), constraint_of(self)
        suffix = self.suffix or None
        if suffix is not None and not all(isinstance(prompt, str) for prompt in self._prompts()):
            raise InvalidRequest("`suffix` needs prompts that are text, not token ids.", param="suffix")
        prompts = [
            GenerateRequest(
                id=request_id,
                prompt=prompt if isinstance(prompt, str) else None,
                token_ids=None if isinstance(prompt, str) else prompt,
                suffix=suffix,
                constraint=constraint,
                lora=self.lora_name,
                priority=self.priority or Priority.INTERACTIVE,
                timeout=self.timeout,
                sampling=sampling,
            )
            for prompt in self._prompts()
        ]
        return fan_out(prompts, self.candidates, "n" if self.best_of is None else "best_of")

    @property
    def candidates(self) -> int:
        """Completions to make of each prompt; the best `n` of them are the choices."""
        return self.best_of or self.n or 1

    def own_names(self) -> dict[str, str]:
        """What engines call fields of this request, and what its caller calls them."""
        return {"response_format": constraining_field(self), "token_ids": "prompt"}

    def echoed_tokens(self) -> list[tuple[int, ...]]:
        """The prompts of token ids whose texts are to be echoed."""
        prompts = self._prompts() if self.echo else []
        return list(dict.fromkeys(prompt for prompt in prompts if not isinstance(prompt, str)))

    def echoes(self, texts: Mapping[tuple[int, ...], str]) -> list[str]:
        """What goes before the text of each choice: its prompt, where `echo` asks for that.

        `texts` are those of `echoed_tokens`.
        """
        prompts = self._prompts()
        if not self.echo:
            return [""] * (len(prompts) * (self.n or 1))
        spelled = [prompt if isinstance(prompt, str) else texts[prompt] for prompt in prompts]
        return [text for text in spelled for _ in range(self.n or 1)]

    def _prompts(self) -> list[str | tuple[int, ...]]:
        given = self.prompt
        if isinstance(given, str):
            return [given]
        whole_ids = tuple(item for item in given if isinstance(item, int))
        if given and len(whole_ids) == len(given):
            return [whole_ids]
        prompts: list[str | tuple[int, ...]] = [
            tuple(item) if isinstance(item, list) else item
            for item in given
            if isinstance(item, str) or (isinstance(item, list) and item)
        ]
        if not prompts or len(prompts) < len(given):
            raise InvalidRequest(
                "`prompt` must be a string, a list of strings, a list of token ids, or a list of those.", param="prompt"
            )
        if len(prompts) > MAX_PROMPTS:
            raise InvalidRequest(f"`prompt` takes at most {MAX_PROMPTS} prompts.", param="prompt")
        return prompts
