"""Which node runs a replica: pure arithmetic over what is free, so that a refusal can show its numbers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from xinfer_runtime.messages import ModelSpec

_HEADROOM_SHARE = 0.05
_HEADROOM_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as placement sees it; memory in bytes.

    `promised` is what replicas on this node will still take of `memory_available`. Nodes with the same `host` share one
    memory. `same_model` counts replicas of the model that are already there. `refusal` says why the node cannot run
    this model at all, such as a missing file.
    """

    address: str
    label: str
    host: str
    memory_total: int
    memory_available: int
    promised: int = 0
    same_model: int = 0
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """The node's address for each replica."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoFit:
    """Why the replicas do not fit, for a person."""

    message: str


def place(spec: ModelSpec, nodes: Sequence[NodeView], count: int | None = None) -> Placement | NoFit:
    """Place `count` (default: all) replicas of `spec`, all or none.

    Each goes to the node with the fewest replicas of this model, then the most free memory: spread over nodes, a crash
    costs least. All replicas are of one size, so this greedy choice finds a placement whenever there is one.
    """
    count = spec.replica if count is None else count
    if not nodes:
        return NoFit(f"no node has joined the cluster to run {spec.uid!r}; wait for one, or look at the cluster's log")
    free = {node.host: _free(node.host, nodes) for node in nodes}
    load = Counter({node.address: node.same_model for node in nodes})
    able = [node for node in nodes if not node.refusal and not spec.n_gpu]
    chosen: list[str] = []
    for _ in range(count):
        fitting = [node for node in able if free[node.host] >= spec.memory_bytes]
        if not fitting:
            return NoFit(_explain(spec, nodes, count, len(chosen)))
        best = min(fitting, key=lambda node: (load[node.address], -free[node.host], node.address))
        load[best.address] += 1
        free[best.host] -= spec.memory_bytes
        chosen.append(best.address)
    return Placement(tuple(chosen))


def headroom(total: int) -> int:
    """What stays free for everything else on the node."""
    return min(int(total * _HEADROOM_SHARE), _HEADROOM_LIMIT)


def _free(host: str, nodes: Sequence[NodeView]) -> int:
    sharing = [node for node in nodes if node.host == host]
    available = min(node.memory_available for node in sharing)
    return max(0, available - sum(node.promised for node in sharing) - headroom(sharing[0].memory_total))


def _explain(spec: ModelSpec, nodes: Sequence[NodeView], count: int, placed: int) -> str:
    each = f"each of {count} replicas of {spec.uid!r}" if count > 1 else f"{spec.uid!r}"
    reasons = [f"{node.label}: {_reason(spec, node, nodes)}" for node in nodes]
    fitted = f" ({placed} of {count} would fit)" if placed else ""
    return (
        f"{each} needs {gib(spec.memory_bytes)} of memory{fitted}: {'; '.join(reasons)}. "
        "Terminate a model, take a smaller quantization, or lower context_length."
    )


def _reason(spec: ModelSpec, node: NodeView, nodes: Sequence[NodeView]) -> str:
    if node.refusal:
        return node.refusal
    if spec.n_gpu:
        return f"asks for {spec.n_gpu} GPU, and the cluster places models on processors only; launch it with n_gpu null"
    return (
        f"{gib(_free(node.host, nodes))} free of {gib(node.memory_total)} "
        f"({gib(node.memory_available)} available, {gib(node.promised)} promised to replicas that are loading, "
        f"{gib(headroom(node.memory_total))} kept free)"
    )


def gib(size: int) -> str:
    """A size for people, in GiB or MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
