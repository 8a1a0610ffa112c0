"""The shapes of answers, for the OpenAPI document; the fuzzer checks what the server sends against them.

Answers are built as plain dicts where they are made, and may hold more than is written here: fields may be added, those
that are here stay.
"""

from typing import Any, Literal

from msgspec import Struct, field

from xinfer_runtime.cluster.protocol import NodeStatus


class TokenDetails(Struct):
    cached_tokens: int


class CompletionDetails(Struct):
    reasoning_tokens: int


class CompletionUsage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails
    completion_tokens_details: CompletionDetails


class CalledFunction(Struct):
    name: str
    arguments: str


class AnsweredCall(Struct):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AnsweredMessage(Struct):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str = ""
    tool_calls: list[AnsweredCall] = field(default_factory=list)


FinishReasons = Literal["stop", "length", "tool_calls", "abort"]


class ChatChoice(Struct):
    index: int
    message: AnsweredMessage
    logprobs: dict[str, Any] | None
    finish_reason: FinishReasons


class ChatCompletion(Struct):
    """OpenAI's chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class TextChoice(Struct):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: FinishReasons


class TextCompletion(Struct):
    """OpenAI's text completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage


class Response(Struct):
    """OpenAI's response."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "failed"]
    model: str
    output: list[dict[str, Any]]
    error: dict[str, Any] | None
    usage: dict[str, Any] | None


class AnthropicUsage(Struct):
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int


class AnthropicAnswer(Struct):
    """Anthropic's message."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: AnthropicUsage


class CountedTokens(Struct):
    input_tokens: int


class Tokens(Struct):
    """vLLM's answer, or llama-server's, which has `tokens` alone."""

    tokens: list[int | dict[str, Any]]
    count: int = 0
    max_model_len: int = 0
    token_strs: list[str] | None = None


class Text(Struct):
    prompt: str
    content: str


class ModelReplica(Struct):
    replica_id: str
    node: str
    address: str
    pid: int
    devices: list[str]
    state: str
    progress: float
    message: str
    restarts: int
    running: int
    waiting: int


class Model(Struct):
    """A model, with OpenAI's names and Xinference's."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    model_uid: str
    model_name: str
    model_type: str
    model_engine: str
    model_ability: list[str]
    context_length: int | None
    state: str
    progress: float
    message: str
    replica: int
    replicas: list[ModelReplica]
    running: int
    waiting: int


class ModelList(Struct):
    object: Literal["list"]
    data: list[Model]


class Nodes(Struct):
    nodes: list[NodeStatus]


class Launched(Struct):
    model_uid: str


class Progress(Struct):
    progress: float
    stage: str
    state: str
    message: str
    replicas: list[dict[str, Any]]


class Happened(Struct):
    event_type: str
    event_ts: float
    event_content: str


class Instance(Struct):
    model_name: str
    model_uid: str
    model_ability: list[str]
    replica: int
    status: str
    replica_statuses: list[dict[str, Any]]


class Remaining(Struct):
    remaining_replicas: int


class Aborted(Struct):
    msg: Literal["DONE", "NOT_FOUND"]


class Registered(Struct):
    model_name: str
    is_builtin: bool
    model_type: str
    model_ability: list[str]
    model_specs: list[dict[str, Any]]


class CachedFiles(Struct):
    list: list[dict[str, Any]]


class Node(Struct):
    node_type: Literal["Supervisor", "Worker"]
    ip_address: str
    gpu_count: int
    gpu_vram_total: int
    software_version: str


class Drained(Struct):
    node: str
    message: str


class Health(Struct):
    status: Literal["ok"]


class AuthRequired(Struct):
    auth: bool


class ServerInfo(Struct):
    version: str
    base_url: str
    cluster: dict[str, Any]
    dashboard: str | None
