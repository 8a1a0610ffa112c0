"""Every request of the client, stated once: what is sent, and what the answer becomes.

The synchronous and the asynchronous client only differ in how they send a `Call` and read the bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import responses
from typing import Any, Generic, Literal, TypedDict, TypeVar

import msgspec

from xinfer_runtime import errors
from xinfer_runtime.client.completion import Completion, chat_messages, parse_completion
from xinfer_runtime.client.description import (
    ModelDescription,
    ModelEventLine,
    ModelListing,
    RegisteredModel,
    ServerDescription,
)
from xinfer_runtime.client.endpoint import Endpoint
from xinfer_runtime.client.errors import UnexpectedAnswer
from xinfer_runtime.client.vectors import Ranked, Vector, parse_ranking, parse_vectors
from xinfer_runtime.models import LaunchRequest, LoraAdapter

T = TypeVar("T")


class PlacementOptions(TypedDict, total=False):
    """Where the replicas of a launch run, and how long.

    `worker_ip` is a node's name or address. `gpu_idx` are positions among a node's GPUs, shared out to the replicas.
    `replica_config` has an item for each replica where they differ, as in Xinference:
    `{"devices": [{"worker_ip", "n_gpu", "gpu_idx"}]}`. `labels` are what nodes must be labelled with. `pinned` replicas
    do not move as long as their node is there.

    A model is unloaded after `idle_timeout` seconds without a request, or, where it is `evictable`, when it is idle and
    another one needs its memory; the next request loads it again. Between `min_replicas` and `max_replicas`, replicas
    are added while requests wait longer than `target_wait` seconds for their first token, and taken away when it is
    quiet.
    """

    worker_ip: str | None
    gpu_idx: int | tuple[int, ...] | None
    replica_config: Any
    labels: dict[str, str] | None
    pinned: bool | None
    idle_timeout: float | None
    evictable: bool | None
    min_replicas: int | None
    max_replicas: int | None
    target_wait: float | None


class EngineOptions(TypedDict, total=False):
    """What the llama.cpp engine can be told. `docs/api.md` has the values.

    `lora` are adapters by name: a GGUF file on the nodes, or its path and scale.
    """

    max_sequences: int | None
    prefix_cache: bool | None
    prefix_store_bytes: int | None
    cache_type_k: Literal["f16", "q8_0", "q4_0"] | None
    cache_type_v: Literal["f16", "q8_0", "q4_0"] | None
    flash_attention: Literal["auto", "on", "off"] | None
    lora: dict[str, str | LoraAdapter] | None
    n_gpu_layers: int | Literal["auto"] | None
    split_mode: Literal["layer", "row", "none"] | None
    main_gpu: int | None
    tensor_split: tuple[float, ...] | None
    pooling: Literal["mean", "cls", "last", "rank"] | None
    speculation: Literal["off", "prompt-lookup", "draft-model"] | None
    draft_model: str | None
    draft_tokens: int | None
    multimodal_projector: str | None


class FurtherOptions(PlacementOptions, EngineOptions, total=False):
    """Options of a launch that few need."""


class LaunchOptions(FurtherOptions, total=False):
    """Options of a launch beside the model's name, in Xinference's names; `Client.launch_model` explains them."""

    model_path: str | None
    model_uid: str | None
    model_type: str
    model_engine: str | None
    model_format: str | None
    model_size_in_billions: int | float | str | None
    quantization: str | None
    replica: int
    n_gpu: int | str | None
    context_length: int | None


class Sampling(TypedDict, total=False):
    """Options of `chat` and `generate`, in OpenAI's and vLLM's names; the server checks their ranges."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    typical_p: float
    xtc_probability: float
    xtc_threshold: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: list[str]
    mirostat_mode: int
    mirostat_tau: float
    mirostat_eta: float
    max_tokens: int
    stop: str | list[str]
    seed: int
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    ignore_eos: bool
    lora_name: str


class ChatOptions(Sampling, total=False):
    """Options of `chat` alone."""

    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    enable_thinking: bool
    thinking_budget: int
    chat_template_kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. `parse` turns the body of a 200 into the result; `patient` ones may take as long as they take."""

    method: str
    path: str
    parse: Callable[[bytes], T]
    body: Any = None
    query: Mapping[str, str] | None = None
    patient: bool = False
    accept: str = "application/json"


def _json(kind: type[T]) -> Callable[[bytes], T]:
    def parse(body: bytes) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UnexpectedAnswer(
                f"The server's answer is not what jupyter-xinfer sends ({error}): is it another service?"
            ) from None

    return parse


parse_model = _json(ModelDescription)


def _model_path(uid: str, *more: str) -> str:
    if not uid:
        raise errors.InvalidRequest("Which model? The uid is empty.", param="model_uid")
    return "/".join((Endpoint("").model_path(uid), *more))


class _RawListing(msgspec.Struct):
    data: list[dict[str, Any]]


def server_info() -> Call[ServerDescription]:
    return Call("GET", "xinfer/info", _json(ServerDescription))


def list_models() -> Call[ModelListing]:
    return Call("GET", "v1/models", _json(ModelListing))


def list_models_json() -> Call[list[dict[str, Any]]]:
    """The models just as the server gives them."""
    return Call("GET", "v1/models", lambda body: _json(_RawListing)(body).data)


def describe_model(uid: str) -> Call[ModelDescription]:
    return Call("GET", _model_path(uid), parse_model)


def terminate_model(uid: str) -> Call[None]:
    return Call("DELETE", _model_path(uid), lambda body: None, patient=True)


def scale_model(uid: str, replica: int) -> Call[ModelDescription]:
    return Call("POST", _model_path(uid, "scale"), parse_model, body={"replica": replica}, patient=True)


def model_events(uid: str) -> Call[list[ModelEventLine]]:
    return Call("GET", _model_path(uid, "events"), _json(list[ModelEventLine]))


def watch_model(uid: str) -> Call[None]:
    """A stream: one description of the model per change, until it is ready, failed or gone."""
    return Call("GET", _model_path(uid, "events"), lambda body: None, patient=True, accept="text/event-stream")


def registered_models(model_type: str = "LLM") -> Call[list[RegisteredModel]]:
    return Call("GET", f"v1/model_registrations/{model_type}", _json(list[RegisteredModel]))


class _Launched(msgspec.Struct):
    model_uid: str


def launch_model(request: LaunchRequest, *, replace: bool = False) -> Call[str]:
    """Returns at once; `watch_model` tells how it goes on. One long request would not survive every proxy."""
    if not (request.model_name or request.model_path):
        raise errors.InvalidRequest(
            "Which model? Give a name of the catalog, or model_path of a GGUF file on the nodes.", param="model_name"
        )
    parse = _json(_Launched)
    body = {name: value for name, value in msgspec.structs.asdict(request).items() if value is not None}
    if request.n_gpu is None:
        body["n_gpu"] = None
    query = {"wait_ready": "false"} | ({"replace": "true"} if replace else {})
    return Call("POST", "v1/models", lambda answer: parse(answer).model_uid, body, query, patient=True)


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def chat(uid: str, messages: Any, tools: Any, stream: bool, options: Mapping[str, Any]) -> Call[Completion]:
    body = {"model": uid, "messages": chat_messages(messages), **_without_none({"tools": tools, **options})}
    return _completion("v1/chat/completions", body, stream)


def generate(uid: str, prompt: str, stream: bool, sampling: Mapping[str, Any]) -> Call[Completion]:
    return _completion("v1/completions", {"model": uid, "prompt": prompt, **_without_none(sampling)}, stream)


def embed(uid: str, texts: Sequence[str], dimensions: int | None, truncate: bool) -> Call[list[Vector]]:
    body = {"model": uid, "input": list(texts), "encoding_format": "base64"}
    options = {"dimensions": dimensions, "truncate_prompt_tokens": -1 if truncate else None}
    return Call("POST", "v1/embeddings", parse_vectors, {**body, **_without_none(options)}, patient=True)


def rerank(uid: str, query: str, documents: Sequence[str], top_n: int | None, truncate: bool) -> Call[list[Ranked]]:
    body = {"model": uid, "query": query, "documents": list(documents)}
    options = {"top_n": top_n, "truncate_prompt_tokens": -1 if truncate else None}
    parse = partial(parse_ranking, documents=documents)
    return Call("POST", "v1/rerank", parse, {**body, **_without_none(options)}, patient=True)


def _completion(path: str, body: dict[str, Any], stream: bool) -> Call[Completion]:
    accept = "application/json"
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        accept = "text/event-stream"
    return Call("POST", path, parse_completion, body, patient=True, accept=accept)


class _ErrorBody(msgspec.Struct):
    class Fields(msgspec.Struct):
        message: str
        code: str | int | None = None
        param: str | None = None

    error: Fields


_BY_STATUS: dict[int, type[errors.XinferError]] = {
    401: errors.AuthenticationRequired,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.RequestTooLarge,
    429: errors.Overloaded,
}


def error_of(status: int, body: bytes, url: str) -> errors.XinferError:
    """The exception for an answer that is not a 200: the server's own, or one that fits the status of a stranger."""
    general = _BY_STATUS.get(status, errors.Unavailable if status in (502, 503, 504) else UnexpectedAnswer)
    try:
        fields = msgspec.json.decode(body, type=_ErrorBody).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return general(_explain(status, url))
    if isinstance(fields.code, str):
        known = errors.from_info(errors.ErrorInfo(fields.code, fields.message, fields.param))
        if type(known) is not errors.XinferError or fields.code == errors.XinferError.code:
            return known
    return general(fields.message, param=fields.param)


def _explain(status: int, url: str) -> str:
    name = f"{status} {responses.get(status, '')}".rstrip()
    if 300 <= status < 400 or status in (401, 403):
        return f"{url} asks for a login ({name}): give the server's token as api_key, or set XINFER_API_KEY."
    if status == 404:
        return f"There is no jupyter-xinfer at {url} ({name}): is the address right, and the server extension enabled?"
    return f"{url} answered {name}, and not as jupyter-xinfer does: is a proxy in between, is the server up?"
