"""The body of a launch as Xinference's clients send it, reduced to what this server can honour.

Those clients send every field of their payload, most of them null. A field at a value that means what happens here
anyway is dropped; any other value of a field that this server cannot honour is refused by name. `LaunchRequest` itself
stays strict: it has only fields that have an effect.
"""

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import msgspec
from msgspec import Struct

from jupyter_xinfer.auth.permissions import ADMIN
from jupyter_xinfer.auth.principal import current_principal
from jupyter_xinfer.protocol.decoding import decode
from xinfer_runtime.errors import InvalidRequest, PermissionDenied
from xinfer_runtime.models import LaunchRequest

_ALIASES = {
    "max_model_len": "context_length",
    "n_ctx": "context_length",
    "max_num_seqs": "max_sequences",
}
"""Engine options of vLLM and llama.cpp that mean one of our fields."""

_UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "n_worker": ((1,), "a replica runs on one node"),
    "request_limits": ((), "requests queue in the engine, which has `max_sequences`"),
    "enable_thinking": ((), "send `enable_thinking` with each chat request"),
    "enable_virtual_env": ((False,), "replicas run in the node's own environment"),
    "virtual_env_packages": (([],), "replicas run in the node's own environment"),
    "virtual_env_find_links": (([],), "replicas run in the node's own environment"),
    "envs": (({},), "requests cannot set the environment of replicas"),
    "trust_remote_code": ((False,), "no engine of it runs code from a model's files, for administrators neither"),
}
"""Fields of Xinference that have no meaning here: the values that are harmless, beside null, and why not others."""


class _Lora(Struct):
    lora_name: str
    local_path: str


class _PeftModelConfig(Struct):
    lora_list: list[_Lora] = []


_FIELDS = frozenset(LaunchRequest.__struct_fields__)


def launch_request(body: bytes) -> LaunchRequest:
    """The launch that `body` asks for. Raises `InvalidRequest` naming the field at fault."""
    kept: dict[str, Any] = {}
    for name, value in decode(body, dict[str, Any]).items():
        field = _ALIASES.get(name, name)
        # A null n_gpu is a wish, "no GPU"; other nulls and empty texts are fields that a form left open.
        if value in (None, "") and field != "n_gpu":
            continue
        if name == "peft_model_config":
            field, value = "lora", _adapters(value)
        if field not in _FIELDS:
            _refuse_unless_harmless(name, value)
        elif field in kept and kept[field] != value:
            raise InvalidRequest(f"`{name}` and another field of the same meaning contradict each other.", param=name)
        else:
            kept[field] = value
    return decode(msgspec.json.encode(kept), LaunchRequest)


def as_sent(message: str, paths: Iterable[str]) -> str:
    """What nodes say of files, which they call by their names, with those `paths` that the caller sent himself."""
    for path in paths:
        name = PurePath(path).name
        if name and path not in message:
            found = re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", message)
            if found is not None:
                message = f"{message[: found.start()]}{path[:1000]}{message[found.end() :]}"
    return message


def _adapters(config: Any) -> dict[str, str]:
    """Xinference's list of LoRA adapters as ours, which go by name."""
    try:
        listed = msgspec.convert(config, _PeftModelConfig).lora_list
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"`peft_model_config`: {error}", param="peft_model_config") from error
    return {each.lora_name: each.local_path for each in listed}


def _refuse_unless_harmless(name: str, value: Any) -> None:
    if name not in _UNSUPPORTED:
        raise InvalidRequest(f"`{name:.100}` is not an option of a launch that this server knows.", param=name[:100])
    harmless, reason = _UNSUPPORTED[name]
    if not any(type(value) is type(each) and value == each for each in harmless):
        caller = current_principal()
        if name == "trust_remote_code" and ADMIN not in caller.permissions:
            raise PermissionDenied(
                f"`{name}` is off, and only an administrator may ask for it; {caller.name!r} is none.", param=name
            )
        raise InvalidRequest(f"`{name}` is not supported by this server: {reason}. Leave it out.", param=name)
