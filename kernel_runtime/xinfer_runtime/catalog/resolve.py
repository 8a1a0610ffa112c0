"""From a launch request to a ModelSpec. Pure: runs in the gateway and touches no file, since files are on the nodes."""

import difflib
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from xinfer_runtime.catalog.families import Family, FamilySpec, families, find_family
from xinfer_runtime.catalog.hub_reference import HUBS, is_hub_reference, parse_hub_reference
from xinfer_runtime.catalog.model_kind import LLM, MODEL_TYPES
from xinfer_runtime.catalog.wishes import gpu_count, node_name, wishes_of
from xinfer_runtime.engines.registry import ENGINES, canonical_name
from xinfer_runtime.errors import InvalidRequest, ModelNotFound
from xinfer_runtime.models import LaunchRequest, ModelSpec

MAX_NAME = 200
MAX_REPLICAS = 1024
MAX_LABELS = 20
MAX_SECONDS = 30 * 86400.0
DEFAULT_TARGET_WAIT = 2.0
MAX_SEQUENCES = 256
MAX_CONTEXT_LENGTH = 1 << 24

RESERVED_UIDS = frozenset({"instances", "events", "prompts", "families", "vllm-supported"})
"""Words that stand where a uid stands in the paths of the management API."""

_ENGINE_OPTIONS = (
    "prefix_cache",
    "prefix_store_bytes",
    "cache_type_k",
    "cache_type_v",
    "flash_attention",
    "n_gpu_layers",
    "split_mode",
    "main_gpu",
    "tensor_split",
    "pooling",
    "speculation",
    "draft_model",
    "draft_tokens",
    "multimodal_projector",
)
"""Fields of a launch that are the engine's own business."""

_BY_DRAFT_MODEL = "draft-model"

_UID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_REPLICA_SUFFIX = re.compile(r"-rep\d+\Z")
_GGUF = "ggufv2"


def resolve(request: LaunchRequest, custom: Sequence[Family] = ()) -> ModelSpec:
    """The model that the request asks for, by path or by a name among the packaged ones and `custom`.

    Raises ModelNotFound for an unknown name, InvalidRequest for anything else that cannot be; `param` names the field.
    """
    model_type = next((each for each in MODEL_TYPES if each.lower() == request.model_type.lower()), None)
    if model_type is None:
        raise InvalidRequest(
            f"model_type {request.model_type!r:.120}: there is {', '.join(MODEL_TYPES)}", param="model_type"
        )
    engine = ENGINES[0] if request.model_engine is None else canonical_name(request.model_engine)
    name, path = _name_and_path(request)
    spec = _spec_of_family(request, _family(name, custom)) if path is None else _spec_of_path(request, name, path)
    _bounded("replica", request.replica, 1, MAX_REPLICAS)
    wishes = wishes_of(request)
    replica = _bounded("replica", len(wishes) or request.replica, 1, MAX_REPLICAS)
    least, most = _replica_limits(request, replica)
    return ModelSpec(
        uid=check_uid(request.model_uid if request.model_uid is not None else _uid_from(spec.name)),
        name=spec.name,
        type=model_type if model_type != LLM else spec.type,
        engine=engine,
        format=spec.format,
        size_in_billions=spec.size_in_billions,
        quantization=spec.quantization,
        path=spec.path,
        replica=max(replica, least or 1),
        n_gpu=gpu_count(request.n_gpu),
        worker_ip=node_name(request.worker_ip, "worker_ip"),
        wishes=wishes,
        labels=_labels(request.labels or {}),
        pinned=bool(request.pinned),
        idle_timeout=_seconds("idle_timeout", request.idle_timeout),
        evictable=bool(request.evictable),
        min_replicas=least,
        max_replicas=most,
        target_wait=_seconds("target_wait", request.target_wait) or DEFAULT_TARGET_WAIT,
        context_length=_optional("context_length", request.context_length, MAX_CONTEXT_LENGTH),
        max_sequences=_optional("max_sequences", request.max_sequences, MAX_SEQUENCES),
        engine_options=_engine_options(request, custom),
    )


def _engine_options(request: LaunchRequest, custom: Sequence[Family]) -> dict[str, Any]:
    options = {name: value for name in _ENGINE_OPTIONS if (value := getattr(request, name)) is not None}
    if request.draft_model is not None:
        options["draft_model"] = _draft_model(request.draft_model, custom)
        options.setdefault("speculation", _BY_DRAFT_MODEL)
    if (options.get("speculation") == _BY_DRAFT_MODEL) is (request.draft_model is None):
        raise InvalidRequest(
            f"speculation {_BY_DRAFT_MODEL!r} and a draft_model belong together: give both or neither",
            param="draft_model",
        )
    _check_projector(request.multimodal_projector)
    if request.lora:
        for name in request.lora:
            if not _UID.fullmatch(name):
                raise InvalidRequest(
                    f"lora: {name!r:.120} cannot be a name; use 1 to 100 letters, digits, dots, dashes and underscores",
                    param="lora",
                )
        options["lora"] = {
            name: {"path": each} if isinstance(each, str) else msgspec.to_builtins(each)
            for name, each in request.lora.items()
        }
    return options


def _draft_model(wanted: str, custom: Sequence[Family]) -> str:
    """What the node finds it by: a path, or a packaged model's name."""
    if wanted.lower().endswith(".gguf"):
        if "\0" in wanted:
            raise InvalidRequest("draft_model: not a path", param="draft_model")
        return wanted
    family = _family(wanted, custom, param="draft_model")
    return family.name if family.builtin else next(iter(family.specs[0].quantizations.values()))


def _check_projector(wanted: str | None) -> None:
    if wanted is not None and (not wanted.lower().endswith(".gguf") or "\0" in wanted):
        raise InvalidRequest(
            f"multimodal_projector {wanted!r:.120}: name a GGUF file on the node, by its path or beside the model's",
            param="multimodal_projector",
        )


def check_uid(uid: str) -> str:
    """`uid` if it may be one. Raises InvalidRequest saying why not."""
    if not _UID.fullmatch(uid):
        raise InvalidRequest(
            f"model_uid {uid!r:.120}: use 1 to 100 letters, digits, dots, dashes and underscores", param="model_uid"
        )
    if _REPLICA_SUFFIX.search(uid):
        raise InvalidRequest(f"model_uid {uid!r:.120}: an ending such as -rep0 names a replica", param="model_uid")
    if uid in RESERVED_UIDS or not uid.strip("."):
        raise InvalidRequest(f"model_uid {uid!r:.120} is a word of the API's paths; choose another", param="model_uid")
    return uid


def _name_and_path(request: LaunchRequest) -> tuple[str, str | None]:
    name, path = request.model_name, request.model_path
    if name and len(name) > MAX_NAME and not name.lower().endswith(".gguf"):
        raise InvalidRequest(
            f"model_name has {len(name)} characters; at most {MAX_NAME} are allowed", param="model_name"
        )
    if not path and name and name.lower().endswith(".gguf"):
        name, path = None, name
    if path is not None and path != "":
        if "\0" in path:
            raise InvalidRequest("model_path: not a path", param="model_path")
        return name or PurePath(path.replace("\\", "/")).stem, path
    if not name:
        raise InvalidRequest("One of model_name and model_path is needed", param="model_name")
    return name, None


def _family(name: str, custom: Sequence[Family], param: str = "model_name") -> Family:
    family = find_family(name) or next((each for each in custom if each.name.lower() == name.lower()), None)
    if family is not None:
        return family
    names = {each.name.lower(): each.name for each in (*families(), *custom)}
    near = [names[key] for key in difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.4)] or list(
        names.values()
    )
    raise ModelNotFound(
        f"Unknown model {name!r:.120}. Nearest: {', '.join(near)}. A GGUF file is launched by its path.",
        param=param,
    )


def _spec_of_path(request: LaunchRequest, name: str, path: str) -> ModelSpec:
    if is_hub_reference(path):
        path = _on_hub(path, request.download_hub)
    elif request.download_hub is not None:
        raise InvalidRequest("download_hub: model_path names a file on the nodes, and no hub", param="download_hub")
    if not path.lower().endswith(".gguf"):
        raise InvalidRequest(f"model_path {path!r:.120}: a .gguf file is needed", param="model_path")
    if request.model_format is not None and request.model_format.lower() != _GGUF:
        raise InvalidRequest(
            f"model_format {request.model_format!r:.120}: a .gguf file is {_GGUF}", param="model_format"
        )
    # Quantization and size are in the file; what the caller says of them is filled in where the file is.
    size = request.model_size_in_billions
    return ModelSpec(
        uid="",
        name=name,
        format=_GGUF,
        path=path,
        quantization=None if (request.quantization or "none").lower() == "none" else request.quantization,
        size_in_billions=None if size is None else _size_label(size),
    )


def _on_hub(path: str, hub: str | None) -> str:
    """The reference, checked; one that leaves the hub open takes `hub`."""
    parse_hub_reference(path)
    if hub is None:
        return path
    if hub.lower() not in HUBS:
        raise InvalidRequest(f"download_hub {hub!r:.80}: there is {', '.join(HUBS)}", param="download_hub")
    return f"{hub.lower()}://{path.partition('://')[2]}"


def _spec_of_family(request: LaunchRequest, family: Family) -> ModelSpec:
    spec = _choose_spec(request, family)
    quantization = _choose_quantization(request.quantization, family, spec)
    return ModelSpec(
        uid="",
        name=family.name,
        type=family.type,
        format=spec.format,
        size_in_billions=spec.size_in_billions,
        # Whoever registered a model without a quantization leaves it to the file to say.
        quantization=None if quantization.lower() == "none" else quantization,
        path="" if family.builtin else spec.quantizations[quantization],
    )


def _choose_spec(request: LaunchRequest, family: Family) -> FamilySpec:
    specs = list(family.specs)
    if request.model_format is not None:
        specs = [spec for spec in specs if spec.format == request.model_format.lower()]
        if not specs:
            there = ", ".join(dict.fromkeys(spec.format for spec in family.specs))
            raise InvalidRequest(
                f"{family.name} has no model_format {request.model_format!r:.120}; there is {there}",
                param="model_format",
            )
    if request.model_size_in_billions is not None:
        wanted = _size_label(request.model_size_in_billions)
        there = ", ".join(dict.fromkeys(spec.size_in_billions for spec in specs))
        specs = [spec for spec in specs if spec.size_in_billions == wanted]
        if not specs:
            raise InvalidRequest(
                f"{family.name} has no model_size_in_billions {request.model_size_in_billions!r:.40}; there is {there}",
                param="model_size_in_billions",
            )
    return specs[0]


def _choose_quantization(wanted: str | None, family: Family, spec: FamilySpec) -> str:
    labels = list(spec.quantizations)
    if wanted is None or wanted.lower() == "none":
        return labels[0]
    for label in labels:
        if label.lower() == wanted.lower():
            return label
    raise InvalidRequest(
        f"{family.name} has no quantization {wanted!r:.120}; there is {', '.join(labels)}", param="quantization"
    )


def _size_label(size: int | float | str) -> str:
    """Sizes as Xinference writes them: 7, 1.8 and "1_8" alike give "7" and "1_8"."""
    text = f"{size:g}" if isinstance(size, int | float) else size.strip()
    return text.removesuffix(".0").replace(".", "_")


def _uid_from(name: str) -> str:
    """A uid out of a name or a file's stem: what a uid cannot hold becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")[:100]


def _replica_limits(request: LaunchRequest, replica: int) -> tuple[int | None, int | None]:
    """The least and the most replicas; both None where their number does not follow the load."""
    least, most = request.min_replicas, request.max_replicas
    if most is None:
        for name in ("min_replicas", "target_wait"):
            if getattr(request, name) is not None:
                raise InvalidRequest(f"{name} means something only together with max_replicas", param=name)
        return None, None
    least = _bounded("min_replicas", 1 if least is None else least, 1, MAX_REPLICAS)
    most = _bounded("max_replicas", most, least, MAX_REPLICAS)
    if replica > most:
        raise InvalidRequest(f"max_replicas is {most}, and replica is {replica}", param="max_replicas")
    return least, most


def _seconds(param: str, value: float | None) -> float | None:
    if value is not None and not 0 < value <= MAX_SECONDS:
        raise InvalidRequest(f"{param} must be more than 0 seconds and at most {MAX_SECONDS:.0f}", param=param)
    return value


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS or any(len(text) > MAX_NAME for item in labels.items() for text in item):
        raise InvalidRequest(
            f"labels: at most {MAX_LABELS} of at most {MAX_NAME} characters are allowed", param="labels"
        )
    return labels


def _bounded(param: str, value: int, low: int, high: int) -> int:
    if isinstance(value, bool) or not low <= value <= high:
        raise InvalidRequest(f"{param} must be a whole number from {low} to {high}, not {value!r:.120}", param=param)
    return value


def _optional(param: str, value: int | None, high: int) -> int | None:
    return None if value is None else _bounded(param, value, 1, high)
