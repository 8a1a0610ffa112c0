"""The types that cross process borders between gateway, controller, node agent, replica and engine.

Everything here is a msgspec Struct of plain values: it validates on decode, and travels as msgpack. Times are in
seconds, sizes in bytes, token counts in tokens.
"""

from enum import StrEnum
from typing import Any, Literal

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


class LoraAdapter(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A LoRA adapter: a GGUF file on the node, and how much of it is added to the weights."""

    path: str
    scale: float = 1.0


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


class EngineStats(Struct, frozen=True, kw_only=True):
    """Load of one replica, sent along with its frames. `tokens_per_second` is over the last few seconds."""

    running: int = 0
    waiting: int = 0
    kv_used: int = 0
    kv_total: int = 0
    tokens_per_second: float = 0.0
    step_seconds: float = 0.0
    """Mean time of the last steps, each of which gives every running request a token."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that were found in the KV cache, since the start."""
    restored_tokens: int = 0
    """Tokens whose cells came back from host memory, since the start."""
    drafted_tokens: int = 0
    """Tokens guessed by speculation, since the start."""
    accepted_tokens: int = 0
    """Those of them that came."""


class ModelInfo(Struct, frozen=True, kw_only=True):
    """What a loaded model turned out to be."""

    context_length: int
    vocab_size: int
    abilities: tuple[str, ...]
    """From `chat`, `generate`, `tools`, `vision`, `embed`, `rerank`, ..."""
    parameters: int = 0
    memory_bytes: int = 0
    architecture: str = ""
    prefix_cache: bool = False
    """Whether requests share what was computed for a common beginning of their prompts."""
    gpu_layers: int = 0
    """Layers on GPUs, the output counted as one."""
    lora: tuple[str, ...] = ()
    """Names of its LoRA adapters."""
    threads: int = 0
    """CPU threads that it can make use of, 0 where that is unknown."""
    dimensions: int = 0
    """Numbers in a vector, of embedding models."""
    max_sequences: int = 0
    """Requests that it computes at the same time, 0 where that is unknown."""
    speculation: str = ""
    """How it guesses tokens that may come, empty where it does not."""
    state_identity: str = ""
    """What replicas have in common between which a running sequence can move as it is; empty where none can."""


class ReplicaDevice(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where one replica is to run, in Xinference's names."""

    worker_ip: str | None = None
    n_gpu: int | str | None = "auto"
    gpu_idx: int | tuple[int, ...] | None = None


class ReplicaConfigItem(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One replica of a launch whose replicas differ. It has one device entry: a replica runs on one node."""

    devices: tuple[ReplicaDevice, ...]
    replica_uid: str | None = None


class LaunchRequest(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The body of a launch, in Xinference's names. One of `model_name` and `model_path` is needed."""

    model_name: str | None = None
    model_path: str | None = None
    model_uid: str | None = None
    model_type: str = "LLM"
    model_engine: str | None = None
    download_hub: str | None = None
    model_format: str | None = None
    model_size_in_billions: int | float | str | None = None
    quantization: str | None = None
    replica: int = 1
    n_gpu: int | str | None = "auto"
    gpu_idx: int | tuple[int, ...] | None = None
    worker_ip: str | None = None
    replica_config: tuple[ReplicaConfigItem, ...] | None = None
    labels: dict[str, str] | None = None
    pinned: bool | None = None
    idle_timeout: float | None = None
    evictable: bool | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    target_wait: float | None = None
    context_length: int | None = None
    max_sequences: int | None = None
    prefix_cache: bool | None = None
    prefix_store_bytes: int | None = None
    cache_type_k: Literal["f16", "q8_0", "q4_0"] | None = None
    cache_type_v: Literal["f16", "q8_0", "q4_0"] | None = None
    flash_attention: Literal["auto", "on", "off"] | None = None
    lora: dict[str, str | LoraAdapter] | None = None
    n_gpu_layers: int | Literal["auto"] | None = None
    split_mode: Literal["layer", "row", "none"] | None = None
    main_gpu: int | None = None
    tensor_split: tuple[float, ...] | None = None
    pooling: Literal["mean", "cls", "last", "rank"] | None = None
    speculation: Literal["off", "prompt-lookup", "draft-model"] | None = None
    draft_model: str | None = None
    draft_tokens: int | None = None
    multimodal_projector: str | None = None


class ReplicaWish(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where one replica is to run.

    `n_gpu` None means as many GPUs of a node as it needs, or none where no node has them. `gpu_idx` are positions among
    the node's GPUs. `worker_ip` is a node's name or address.
    """

    n_gpu: int | None = None
    gpu_idx: tuple[int, ...] = ()
    worker_ip: str = ""


class ModelSpec(Struct, frozen=True, kw_only=True):
    """A model that somebody wants to run: one row of the controller's desired state."""

    uid: str
    name: str
    type: str = "LLM"
    engine: str = "llama.cpp"
    format: str = "ggufv2"
    size_in_billions: str | None = None
    quantization: str | None = None
    path: str = ""
    """The file or folder on the node. Empty for a model that the catalog finds on the node by name and quantization."""
    replica: int = 1
    n_gpu: int | None = None
    context_length: int | None = None
    """Tokens a sequence may hold; None lets the engine choose."""
    max_sequences: int | None = None
    """Sequences in one decode batch; None lets the engine choose."""
    worker_ip: str = ""
    labels: dict[str, str] = {}
    """What a node must be labelled with to run a replica."""
    wishes: tuple[ReplicaWish, ...] = ()
    """Of the first replicas, where they differ."""
    pinned: bool = False
    """Whether replicas stay where they are as long as their node does."""
    idle_timeout: float | None = None
    """Seconds without a request after which the model is unloaded, to be loaded again for the next one."""
    evictable: bool = False
    """Whether an idle model may be unloaded, to be loaded again later, when another one needs its memory."""
    min_replicas: int | None = None
    max_replicas: int | None = None
    """Between these, replicas come and go with the load. None: there are always as many as asked for."""
    target_wait: float = 2.0
    """Seconds that requests may wait for their first token before a replica is added."""
    asleep: bool = False
    """Whether it is unloaded until the next request."""
    memory_bytes: int = 0
    """Forecast for one replica, 0 where unknown; placement reserves it."""
    weight_bytes: int = 0
    kv_cache_bytes: int = 0
    """The parts of the forecast that follow from quantization and context length, and that GPUs divide among them."""
    gpu_share: float = 1.0
    """What of these two goes on GPUs where there are some."""
    created: float = 0.0
    owner: str = ""
    engine_options: dict[str, Any] = {}

    def wish(self, index: int) -> ReplicaWish:
        """Where the replica of that number is to run."""
        if index < len(self.wishes):
            return self.wishes[index]
        return ReplicaWish(n_gpu=self.n_gpu, worker_ip=self.worker_ip)


class ReplicaState(StrEnum):
    PLACING = "placing"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    SLEEPING = "sleeping"
    """Of a model alone: it is unloaded, and the next request loads it."""


class Replica(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A replica as it is: one row of the controller's actual state.

    `address` is `host:port` of its link listener and `token` opens it; both are empty before it listens.
    """

    id: str
    uid: str
    node: str = ""
    state: ReplicaState = ReplicaState.PLACING
    address: str = ""
    token: str = ""
    pid: int = 0
    progress: float = 0.0
    message: str = ""
    """The stage, or what went wrong."""
    since: float = 0.0
    """When the stage began, in unix seconds."""
    bytes_done: int = 0
    bytes_total: int = 0
    """Of a download."""
    error: ErrorInfo | None = None
    restarts: int = 0
    info: ModelInfo | None = None
    devices: tuple[str, ...] = ()
    """UUIDs of the GPUs that it alone may use; none for a replica on CPUs."""

    def __repr__(self) -> str:
        # Without the token: rows end up in logs and in tracebacks.
        return f"Replica(id={self.id!r}, node={self.node!r}, state={self.state}, address={self.address!r})"


class ModelEvent(Struct, frozen=True, kw_only=True):
    """Something that happened to a model, for people: `type` is INFO, WARNING or ERROR; `time` is unix seconds."""

    type: str
    time: float
    content: str


class ModelStatus(Struct, frozen=True, kw_only=True):
    """A model as the controller reports it: what is wanted, what is, and what happened."""

    spec: ModelSpec
    replicas: tuple[Replica, ...] = ()
    events: tuple[ModelEvent, ...] = ()

    @property
    def state(self) -> ReplicaState:
        """The best state any replica is in: one ready replica makes a ready model."""
        if self.spec.asleep:
            return ReplicaState.SLEEPING
        states = {replica.state for replica in self.replicas}
        order = ("ready", "loading", "downloading", "placing", "failed", "draining")
        return next((ReplicaState(s) for s in order if s in states), ReplicaState.PLACING)

    @property
    def error(self) -> ErrorInfo | None:
        return next((replica.error for replica in self.replicas if replica.error is not None), None)
