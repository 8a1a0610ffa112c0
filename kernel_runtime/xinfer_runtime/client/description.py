"""Models as the server describes them."""

from typing import Any

from msgspec import Struct

from xinfer_runtime.errors import ErrorInfo


class ReplicaDescription(Struct, frozen=True, kw_only=True):
    """One process that serves a model, with its load. `kv_used` and `kv_total` are tokens of KV cache.

    `step_seconds` is the mean of its last steps. Of all `prompt_tokens` since its start, `cached_tokens` were in its
    cache; the cells of `restored_tokens` came back from host memory; `drafted_tokens` were guessed by speculation, and
    `accepted_tokens` of them came.
    """

    replica_id: str
    node: str | None = ""
    address: str | None = ""
    pid: int | None = 0
    state: str = "placing"
    progress: float = 0.0
    bytes_done: int = 0
    bytes_total: int = 0
    """Of the model's file while it is downloaded."""
    message: str | None = ""
    devices: tuple[str, ...] = ()
    """UUIDs of the GPUs that it has for itself."""
    restarts: int = 0
    running: int = 0
    waiting: int = 0
    tokens_per_second: float = 0.0
    kv_used: int = 0
    kv_total: int = 0
    step_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    restored_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


class ModelDescription(Struct, frozen=True, kw_only=True):
    """A model on the cluster, as it was when the server was asked. Unknown fields of newer servers are ignored."""

    model_uid: str
    model_name: str = ""
    model_type: str = "LLM"
    model_engine: str | None = None
    model_format: str | None = None
    model_size_in_billions: int | float | str | None = None
    quantization: str | None = None
    context_length: int | None = None
    model_ability: tuple[str, ...] = ()
    model_path: str | None = None
    replica: int = 1
    state: str = "placing"
    """placing, downloading, loading, ready, draining, failed or sleeping: unloaded until the next request."""
    progress: float = 0.0
    message: str | None = ""
    error: ErrorInfo | None = None
    memory_bytes: int | None = 0
    replicas: tuple[ReplicaDescription, ...] = ()
    running: int = 0
    waiting: int = 0
    tokens_per_second: float = 0.0
    created: float = 0

    @property
    def bytes_done(self) -> int:
        """Of the download that is furthest."""
        return max((replica.bytes_done for replica in self.replicas), default=0)

    @property
    def bytes_total(self) -> int:
        return max((replica.bytes_total for replica in self.replicas), default=0)

    @property
    def ready_replicas(self) -> int:
        return sum(replica.state == "ready" for replica in self.replicas)


class ModelListing(Struct, frozen=True):
    data: tuple[ModelDescription, ...] = ()


class ModelEventLine(Struct, frozen=True):
    """One entry of a model's history. `event_type` is INFO, WARNING or ERROR; `event_ts` is unix seconds."""

    event_type: str
    event_ts: float
    event_content: str


class RegisteredModel(Struct, frozen=True, kw_only=True):
    """A model that can be launched by name."""

    model_name: str
    is_builtin: bool = True
    model_type: str = "LLM"
    model_description: str | None = ""
    context_length: int | None = None
    model_ability: tuple[str, ...] = ()
    model_specs: tuple[dict[str, Any], ...] = ()


class ClusterDescription(Struct, frozen=True):
    """The Dask cluster behind a server. `state` is stopped, starting, running, unreachable or failed."""

    state: str = "stopped"
    scheduler: str | None = None
    message: str | None = ""


class ServerDescription(Struct, frozen=True, kw_only=True):
    version: str = ""
    base_url: str = "/"
    cluster: ClusterDescription = ClusterDescription()
    dashboard: str | None = None
