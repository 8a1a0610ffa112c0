"""Requests and their answers as they cross process borders between gateway, replica and engine.

Everything here is a msgspec Struct of plain values: it validates on decode, and travels as msgpack. Times are in
seconds, sizes in bytes, token counts in tokens.
"""

from enum import StrEnum
from typing import Any

from msgspec import Struct

from xinfer_runtime.errors import ErrorInfo


class DryParams(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """DRY: a token that would go on with a repetition of n tokens, n at least `allowed_length`, loses
    `multiplier * base ** (n - allowed_length)` of its logit. It looks at the last `penalty_last_n` tokens of prompt and
    generated text, -1 for all; no repetition counts across one of the `sequence_breakers`.
    """

    multiplier: float
    base: float = 1.75
    allowed_length: int = 2
    penalty_last_n: int = -1
    sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")


class MirostatParams(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Mirostat, version `mode` (1 or 2), in place of the cuts: it steers towards tokens of `tau` bits of surprise, and
    corrects itself by `eta` of the error after each.
    """

    mode: int
    tau: float = 5.0
    eta: float = 0.1


class SamplingParams(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen. Ranges are checked where requests enter (the HTTP protocol), not here.

    Penalties are OpenAI's (presence, frequency, over the generated text) and llama.cpp's (`repetition_penalty`, over
    the last `penalty_window` tokens of prompt and generated text). `temperature` 0 is greedy.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    """Mass of the tokens kept whose information is closest to the entropy; 1 keeps all."""
    xtc_probability: float = 0.0
    """How often XTC acts: it leaves of the tokens with at least `xtc_threshold` only the least probable."""
    xtc_threshold: float = 0.1
    dry: DryParams | None = None
    mirostat: MirostatParams | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    penalty_window: int = 64
    seed: int | None = None
    max_tokens: int | None = None
    """Tokens to generate at most; None means until the end of the context."""
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logit_bias: dict[int, float] = {}
    """Added to the logits of these token ids before everything else."""
    logprobs: int | None = None
    """None: no log probabilities; n: of each generated token, and of the n most likely ones in its place."""


class ToolCall(Struct, frozen=True, kw_only=True):
    """One complete call that the model made. `arguments` is JSON text, as in OpenAI's API."""

    id: str
    name: str
    arguments: str


class ConstraintKind(StrEnum):
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"


class Constraint(Struct, frozen=True, array_like=True):
    """What the output must conform to.

    `value` is the schema (JSON_SCHEMA), the expression (REGEX), the list of allowed texts (CHOICE), the grammar's text
    (GRAMMAR: Lark or GBNF), and None for JSON_OBJECT.
    """

    kind: ConstraintKind
    value: Any = None


class ChatImage(Struct, frozen=True, array_like=True):
    """An image in a message, encoded as its file was (PNG, JPEG, GIF or WebP)."""

    data: bytes
    offset: int = 0
    """How many characters of the message's content come before it."""
    place: str = "messages"
    """What its caller knows it by, such as `messages[0].content[1]`."""


class ChatMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a conversation; `tool_calls` of an assistant, `tool_call_id` and `name` of a tool.

    `images` are in their order in the message. `reasoning` is what an assistant thought before it said that.
    """

    role: str
    content: str | None = None
    reasoning: str | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    images: tuple[ChatImage, ...] = ()


class Tokenization(Struct, frozen=True, omit_defaults=True):
    """How a prompt that is only wanted as tokens becomes them."""

    begin: bool = True
    """Whether the token that begins a text comes first, where the model has one."""
    control: bool = True
    """Whether texts such as `<|im_end|>` in the prompt are control tokens."""


class Priority(StrEnum):
    """Whose turn it is where requests wait: somebody looks at the answer, or nobody does."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class GenerateRequest(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="generate"):
    """A request to a replica. Exactly one of `messages`, `prompt` and `token_ids` is given.

    `resume` holds the token ids that an earlier replica already sent for this request: the engine goes on after them
    and emits only what is new, with usage counted as if it had generated them itself. `resume_mu` is what the last of
    its deltas said of Mirostat's state.
    """

    id: str
    messages: tuple[ChatMessage, ...] | None = None
    prompt: str | None = None
    token_ids: tuple[int, ...] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    """OpenAI tool objects, `{"type": "function", "function": {...}}`, for the chat template."""
    parse_tool_calls: bool = False
    """Whether tool calls in the output become `Delta.tool_calls` instead of text."""
    one_call: bool = False
    """Whether the output ends with its first tool call."""
    template_kwargs: dict[str, Any] = {}
    thinking_budget: int | None = None
    """Tokens of thoughts at most, of models that mark them; None for as many as they like."""
    suffix: str | None = None
    """What comes after the text that is to be generated, which then fills the place between `prompt` and this."""
    tokenize: Tokenization | None = None
    """The answer is the prompt's tokens, in one delta; nothing is generated."""
    detokenize: bool = False
    """The answer is the text of `token_ids`, in one delta; nothing is generated."""
    constraint: Constraint | None = None
    lora: str | None = None
    """The name of the model's LoRA adapter to use."""
    sampling: SamplingParams = SamplingParams()
    priority: Priority = Priority.INTERACTIVE
    """Interactive requests go ahead of batch ones wherever requests wait."""
    timeout: float | None = None
    """Seconds from its submission after which nobody wants the answer any more; not a time, for clocks differ."""
    resume: tuple[int, ...] = ()
    resume_mu: float | None = None
    trace: str = ""
    """What logs call the caller's HTTP request, of which this may be one of several; `id` is the gateway's own."""


class EmbedRequest(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="embed"):
    """A request to a replica with an embedding model or a reranker: a vector of each input, in one delta.

    Inputs are texts or the model's own token ids. With a `query` each input is a document, and its vector has one
    number: how relevant it is to the query.
    """

    id: str
    inputs: tuple[str | tuple[int, ...], ...]
    first: int = 0
    """The number of the first of them among all that the caller sent, for errors to name the one at fault."""
    query: str | None = None
    dimensions: int | None = None
    """Numbers to keep of each vector, the first ones; None for all."""
    normalize: bool = True
    """Whether vectors are scaled to length 1; of relevance, whether it is scaled to 0 to 1."""
    max_tokens: int | None = None
    """Tokens to keep of an input, those that the model puts around it included, or of a document's text alone; 0 for as
    many as the model takes. None refuses inputs that are too long."""
    trace: str = ""
    """As in `GenerateRequest`."""


ReplicaRequest = GenerateRequest | EmbedRequest


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    ABORT = "abort"


class Usage(Struct, frozen=True, array_like=True):
    """Tokens of one request. `cached_tokens` of the prompt were found in the KV cache, and `reasoning_tokens` of the
    completion came before its answer, as thoughts."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class TokenLogprob(Struct, frozen=True, array_like=True):
    """Natural-log probabilities before sampling parameters apply. `top` has the most likely tokens, best first."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


class Delta(Struct, frozen=True, array_like=True):
    """What one engine step adds to one request.

    `text` is whole UTF-8 characters and may be empty (a held back stop string or partial character). `token_ids` are
    always given: they are what another replica resumes from. The last delta of a request has a `finish_reason` and
    `usage`, or an `error`.
    """

    id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    error: ErrorInfo | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    """As many as `token_ids` where they were asked for, else none."""
    reasoning: str = ""
    """Thoughts before the answer, of models that mark them; not part of `text`."""
    mirostat_mu: float | None = None
    """Mirostat's state after these tokens, where it is in use: what another replica needs beside them."""
    pieces: tuple[bytes, ...] = ()
    """What each of `token_ids` stands for, in the answer to a tokenization."""
    vectors: tuple[bytes, ...] = ()
    """Of each input its vector, as little-endian float32, in the answer to an `EmbedRequest`."""
    stop_string: str | None = None
    """The stop string that ended the output, in the last delta."""
    prompt_tokens: int = 0
    """Of the whole prompt, in the first delta: of a long one before it is computed, so that it can be counted although
    nobody waits for its end."""

    @property
    def last(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    @property
    def only_begins(self) -> bool:
        """Whether it says how long the prompt is, and nothing of the answer."""
        return bool(self.prompt_tokens) and not (
            self.last or self.token_ids or self.text or self.reasoning or self.tool_calls
        )
