"""A model as it is launched, wanted and running: types that cross process borders.

As in `messages.py`, everything is a msgspec Struct of plain values. Times are in seconds, sizes in bytes.
"""

from enum import StrEnum
from typing import Any, Literal

from msgspec import Struct

from xinfer_runtime.errors import ErrorInfo


class LoraAdapter(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A LoRA adapter: a GGUF file on the node, and how much of it is added to the weights."""

    path: str
    scale: float = 1.0


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
