"""Why replicas fit nowhere, per node and in numbers, and what would fit instead."""

import math
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest

from xinfer_runtime.cluster.placement_room import DeviceView, NodeView, Room, device_bytes, headroom, host_bytes
from xinfer_runtime.models import ModelSpec, ReplicaWish

_NODES_TOLD = 8
"""Nodes that a refusal speaks of, those with most room first: nobody reads five hundred."""
_LEAST_CONTEXT = 1024
_CONTEXT_STEP = 256

_BITS = {
    "F32": 32.0,
    "F16": 16.0,
    "BF16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.56,
    "Q5_K_M": 5.68,
    "Q4_K_M": 4.84,
    "Q4_0": 4.5,
    "Q3_K_M": 3.91,
    "Q2_K": 3.35,
}
"""Bits per weight of whole files; the mixtures as llama.cpp's page on its quantization tool has them for Llama 2 7B."""


def explain(
    room: Room,
    nodes: Sequence[NodeView],
    wishes: Sequence[ReplicaWish],
    number: int,
    refusals: Mapping[str, str],
    *,
    placed: int,
) -> str:
    """The refusal of wish `number`, where `placed` others would find a spot in `room`."""
    spec, wish = room.spec, wishes[number]
    if not nodes:
        return f"no node has joined the cluster to run {spec.uid!r}; wait for one, or look at the cluster's log"
    each = f"each of {len(wishes)} replicas of {spec.uid!r}" if len(wishes) > 1 else f"{spec.uid!r}"
    fitted = f" ({placed} of {len(wishes)} would fit)" if placed else ""
    told = nlargest(_NODES_TOLD, nodes, key=lambda node: _most_room(room, node, wish, refusals))
    reasons = [f"{node.label}: {_reason(room, node, wish, refusals)}" for node in told]
    if len(nodes) > len(told):
        reasons.append(f"{len(nodes) - len(told)} more nodes have no more room")
    return f"{each} needs {_needs(spec, wish)}{fitted}: {'; '.join(reasons)}. {advice(room, nodes, wish, refusals)}"


def advice(room: Room, nodes: Iterable[NodeView], wish: ReplicaWish, refusals: Mapping[str, str]) -> str:
    """What would fit in place of `room.spec`: a shorter context, or a smaller quantization."""
    spec = room.spec
    most = max((_most_room(room, node, wish, refusals) for node in nodes), default=0)
    if most >= spec.memory_bytes:
        return "Ask for fewer replicas, or terminate a model."
    found = [text for text in (_shorter_context(spec, most), _smaller_quantization(spec, most)) if text]
    if found:
        return f"What would fit: {', or '.join(found)}; or terminate a model."
    if most <= 0:
        return "Nothing fits now where it may run: let it run elsewhere, or terminate a model."
    return f"At most {gib(most)} would fit now; terminate a model, or take a smaller one."


def gib(size: int) -> str:
    """A size for people, in GiB or MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _needs(spec: ModelSpec, wish: ReplicaWish) -> str:
    count = len(wish.gpu_idx) or wish.n_gpu or 0
    if not count:
        return f"{gib(spec.memory_bytes)} of memory"
    where = f"of GPU{'s' if len(wish.gpu_idx) > 1 else ''} {_list(wish.gpu_idx)}" if wish.gpu_idx else "of a GPU"
    if count > 1:
        where = f"of each of {count} GPUs" if not wish.gpu_idx else where
    return f"{gib(device_bytes(spec, count))} {where} and {gib(host_bytes(spec, count))} of memory"


def _reason(room: Room, node: NodeView, wish: ReplicaWish, refusals: Mapping[str, str]) -> str:
    spec = room.spec
    refusal = node.refusal or refusals.get(node.address, "")
    if refusal:
        return refusal
    if wish.worker_ip and not node.is_called(wish.worker_ip):
        return f"it is not {wish.worker_ip}"
    missing = [f"{name}={value}" for name, value in spec.labels.items() if node.labels.get(name) != value]
    if missing:
        return f"it is not labelled {', '.join(missing)}"
    if node.engines is not None and spec.engine not in node.engines:
        return f"{spec.engine} is not installed there"
    parts = []
    if wish.n_gpu != 0 and (node.devices or wish.n_gpu or wish.gpu_idx):
        parts.append(_gpu_reason(room, node, wish))
    if wish.n_gpu in (None, 0) or room.memory[node.host] < host_bytes(spec, 1):
        parts.append(_memory_reason(room, node))
    return ", ".join(parts)


def _gpu_reason(room: Room, node: NodeView, wish: ReplicaWish) -> str:
    if not node.devices:
        return "it has no GPU"
    if not node.gpus_for(room.spec.engine):
        return f"its {room.spec.engine} is not built for GPUs"
    absent = set(wish.gpu_idx) - {gpu.index for gpu in node.devices}
    if absent:
        return f"it has no GPU {_list(sorted(absent))}"
    if wish.n_gpu and wish.n_gpu > len(node.devices):
        return f"it has {len(node.devices)} GPU{'s' if len(node.devices) > 1 else ''}"
    wanted = [gpu for gpu in node.devices if not wish.gpu_idx or gpu.index in wish.gpu_idx]
    return ", ".join(_device_reason(gpu, room.device[gpu.uuid]) for gpu in wanted)


def _device_reason(gpu: DeviceView, free: int) -> str:
    promised = f", {gib(gpu.promised)} promised to replicas that are loading" if gpu.promised else ""
    return f"GPU {gpu.index} ({gpu.name}) has {gib(free)} free of {gib(gpu.memory_total)}{promised}"


def _memory_reason(room: Room, node: NodeView) -> str:
    return (
        f"{gib(room.memory[node.host])} free of {gib(node.memory_total)} "
        f"({gib(node.memory_available)} available, {gib(node.promised)} promised to replicas that are loading, "
        f"{gib(headroom(node.memory_total))} kept free)"
    )


def _most_room(room: Room, node: NodeView, wish: ReplicaWish, refusals: Mapping[str, str]) -> int:
    """The largest forecast that would fit there now."""
    if node.refusal or node.address in refusals or not room.admits(node):
        return 0
    if wish.worker_ip and not node.is_called(wish.worker_ip):
        return 0
    gpus = node.gpus_for(room.spec.engine) if wish.n_gpu != 0 else ()
    return largest_forecast(
        room.memory[node.host],
        [room.device[gpu.uuid] for gpu in gpus if not wish.gpu_idx or gpu.index in wish.gpu_idx],
        len(set(wish.gpu_idx)) or wish.n_gpu,
    )


def largest_forecast(memory: int, devices: Sequence[int], n_gpu: int | None) -> int:
    """The `memory_bytes` of the largest replica for a node with so much of its own memory and on each GPU free."""
    most = memory if not n_gpu else 0
    free = sorted(devices, reverse=True)
    empty = ModelSpec(uid="", name="")
    for count in range(1, len(free) + 1) if n_gpu is None else (n_gpu,):
        if 0 < count <= len(free) and memory >= host_bytes(empty, count):
            most = max(most, count * (free[count - 1] - device_bytes(empty, count)))
    return most


def _shorter_context(spec: ModelSpec, most: int) -> str:
    if not spec.context_length or not spec.kv_cache_bytes:
        return ""
    left = most - (spec.memory_bytes - spec.kv_cache_bytes)
    length = math.floor(left * spec.context_length / spec.kv_cache_bytes) // _CONTEXT_STEP * _CONTEXT_STEP
    return f"context_length {length}" if _LEAST_CONTEXT <= length < spec.context_length else ""


def _smaller_quantization(spec: ModelSpec, most: int) -> str:
    bits = _BITS.get((spec.quantization or "").upper())
    if bits is None or not spec.weight_bytes:
        return ""
    for name, fewer in _BITS.items():
        size = spec.memory_bytes - math.ceil(spec.weight_bytes * (1 - fewer / bits))
        if fewer < bits and size <= most:
            return f"a {name} file of it, about {gib(size)}"
    return ""


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in numbers)
