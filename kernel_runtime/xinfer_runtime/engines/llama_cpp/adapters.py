"""LoRA adapters: loaded with the model, and chosen for each pass over sequences that ask for the same one.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022. In llama.cpp an adapter belongs to a context
and not to a sequence, so a pass computes sequences of one adapter. They are set before contexts are made, which reserve
room for what adapters add to a pass.
"""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import llama_cpp

from xinfer_runtime.catalog.lora_file import adapter_path, read_adapter
from xinfer_runtime.engines.llama_cpp import native_log
from xinfer_runtime.errors import EngineError, InvalidRequest, ModelFileError
from xinfer_runtime.models import LoraAdapter

NO_ADAPTER = ""


class HasAdapter(Protocol):
    @property
    def adapter(self) -> str: ...


Item = TypeVar("Item", bound=HasAdapter)


def by_adapter(items: Sequence[Item], current: str) -> list[list[Item]]:
    """The items in groups of one adapter each, those of the `current` one first: to change it takes time."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.adapter, []).append(item)
    return [groups[name] for name in sorted(groups, key=lambda name: name != current)]


class Adapters:
    """The adapters of a loaded model. Belongs to the thread of its contexts; freed with the model."""

    def __init__(self, model: int, wanted: Mapping[str, LoraAdapter]) -> None:
        """Raises ModelFileError, naming the file, for an adapter that is broken or another model's."""
        self._loaded: dict[str, tuple[Any, float]] = {
            name: (_load(model, each), each.scale) for name, each in wanted.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._loaded)

    def check(self, name: str | None) -> str:
        """The adapter of a request. Raises InvalidRequest for one that is not there."""
        if name is not None and name not in self._loaded:
            there = f"there is {', '.join(self._loaded)}" if self._loaded else "it was launched without any"
            raise InvalidRequest(f"This model has no LoRA adapter {name!r:.100}; {there}", param="lora")
        return name or NO_ADAPTER

    def use(self, context: int, name: str) -> None:
        """Have the passes of a context computed with this adapter, or without one."""
        handles: Any = None
        scales: Any = None
        if name != NO_ADAPTER:
            handle, scale = self._loaded[name]
            handles, scales = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(handle), (ctypes.c_float * 1)(scale)
        if llama_cpp.llama_set_adapters_lora(context, handles, int(name != NO_ADAPTER), scales):
            raise EngineError(f"llama.cpp could not use the LoRA adapter {name!r}")


def _load(model: int, adapter: LoraAdapter) -> Any:
    path = adapter_path(adapter)
    read_adapter(path)
    handle = llama_cpp.llama_adapter_lora_init(model, str(path).encode())
    if not handle:
        reason = native_log.errors().replace(str(path), path.name) or "no reason was given"
        raise ModelFileError(
            f"llama.cpp could not load the LoRA adapter {path.name}: {reason}", param="lora", place=str(path)
        )
    if llama_cpp.llama_adapter_get_alora_n_invocation_tokens(handle):
        raise ModelFileError(f"{path.name} is an activated LoRA adapter, which is not supported", param="lora")
    return handle
