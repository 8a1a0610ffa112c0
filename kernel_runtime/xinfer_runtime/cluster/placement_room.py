"""What is free on nodes and their GPUs for the replicas of one model, and the best place for the next of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from xinfer_runtime.cluster.protocol import EngineSupport
from xinfer_runtime.models import ModelSpec, ReplicaWish

_HEADROOM_SHARE = 0.05
_HEADROOM_LIMIT = 1 << 30

GPU_CONTEXT_BYTES = 576 << 20
"""What a process takes of each of its GPUs beside the model: CUDA's context, and the work space of its libraries. With
0.5 B parameters on an H200, in F16 and Q4_0, a GPU had 506 to 633 MiB that llama.cpp does not count as its own; the
forecast has 71 of them as the process's."""
GPU_PROCESS_BYTES = 896 << 20
"""What a replica on GPUs takes of the node's own memory: 440 to 860 MiB there."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A GPU as placement sees it; memory in bytes. `promised` is what replicas will still take of `memory_free`.

    A `divided` one is an instance of a GPU (MIG): a process can use one of them, not several.
    """

    uuid: str
    index: int
    name: str
    memory_total: int
    memory_free: int
    promised: int = 0
    divided: bool = False


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as placement sees it; memory in bytes.

    `promised` is what replicas on this node will still take of `memory_available`. Nodes with the same `host` share one
    memory, and nodes may share GPUs, which their UUIDs tell. `ip` is where others reach the node. `engines` None means
    that nobody knows what it can run. `refusal` says why the node takes no replica of any model.
    """

    address: str
    label: str
    host: str
    memory_total: int
    memory_available: int
    promised: int = 0
    ip: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[DeviceView, ...] = ()
    engines: Mapping[str, EngineSupport] | None = None
    refusal: str = ""

    def is_called(self, name: str) -> bool:
        """Whether `name` means this node: its label, or its address with or without protocol and port."""
        return name in (self.label, self.address, self.address.rpartition("://")[2], self.ip)

    def gpus_for(self, engine: str) -> tuple[DeviceView, ...]:
        """The GPUs that the node's build of the engine can use."""
        usable = self.engines is None or (engine in self.engines and self.engines[engine].gpu)
        return self.devices if usable else ()


@dataclass(frozen=True, slots=True)
class Presence:
    """What there is of the model already: replicas by node address, and by the UUID of their GPUs."""

    nodes: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spot:
    """A replica's place: a node's address, and the UUIDs of the GPUs that it gets."""

    address: str
    devices: tuple[str, ...] = ()


class Room:
    """What is free for replicas of `spec`, less with each that is placed."""

    def __init__(self, spec: ModelSpec, nodes: Sequence[NodeView], presence: Presence) -> None:
        self.spec = spec
        self.memory = free_memory(nodes)
        self.device = free_devices(nodes)
        self._hosts = {node.address: node.host for node in nodes}
        self._on_node = Counter(presence.nodes)
        self._on_device = Counter(presence.devices)

    def admits(self, node: NodeView) -> bool:
        """Whether the node has the labels and the engine."""
        if any(node.labels.get(name) != value for name, value in self.spec.labels.items()):
            return False
        return node.engines is None or self.spec.engine in node.engines

    def best(self, nodes: Iterable[NodeView], wish: ReplicaWish) -> Spot | None:
        """The spot to take next; None where there is none."""
        found = []
        for node in nodes:
            if wish.worker_ip and not node.is_called(wish.worker_ip):
                continue
            devices = self._devices(node, wish)
            if devices is not None:
                found.append((self._rank(node, devices), Spot(node.address, devices)))
        return min(found, key=lambda each: each[0])[1] if found else None

    def take(self, spot: Spot) -> None:
        self._on_node[spot.address] += 1
        self.memory[self._hosts[spot.address]] -= host_bytes(self.spec, len(spot.devices))
        for uuid in spot.devices:
            self._on_device[uuid] += 1
            self.device[uuid] -= device_bytes(self.spec, len(spot.devices))

    def _devices(self, node: NodeView, wish: ReplicaWish) -> tuple[str, ...] | None:
        """The GPUs for a replica on this node, none for one on its CPUs; None where it does not fit."""
        memory = self.memory[node.host]
        gpus = node.gpus_for(self.spec.engine) if wish.n_gpu != 0 and self.spec.gpu_share else ()
        if wish.gpu_idx:
            gpus = tuple(gpu for gpu in gpus if gpu.index in wish.gpu_idx)
            counts: Iterable[int] = (len(set(wish.gpu_idx)),)
        else:
            counts = range(1, len(gpus) + 1) if wish.n_gpu is None else filter(None, (wish.n_gpu,))
        for count in counts:
            share = device_bytes(self.spec, count)
            fitting = [gpu for gpu in gpus if self.device[gpu.uuid] >= share and (count == 1 or not gpu.divided)]
            if len(fitting) >= count and memory >= host_bytes(self.spec, count):
                # Several at once take from where most is left, which leaves the most places for others like it.
                fitting.sort(key=self._fullest if count == 1 else self._emptiest)
                return tuple(gpu.uuid for gpu in fitting[:count])
        on_cpus = wish.n_gpu in (None, 0) and not wish.gpu_idx
        return () if on_cpus and memory >= host_bytes(self.spec, 0) else None

    def _rank(self, node: NodeView, devices: tuple[str, ...]) -> tuple[bool, int, int, int, str]:
        left = self.device[devices[0]] if devices else -self.memory[node.host]
        return not devices, self._on_node[node.address], len(devices), left, node.address

    def _fullest(self, gpu: DeviceView) -> tuple[int, int, str]:
        return self._on_device[gpu.uuid], self.device[gpu.uuid], gpu.uuid

    def _emptiest(self, gpu: DeviceView) -> tuple[int, int, str]:
        return 0, -self.device[gpu.uuid], gpu.uuid


def host_bytes(spec: ModelSpec, gpus: int) -> int:
    """What a replica on so many GPUs takes of its node's own memory."""
    if not gpus:
        return spec.memory_bytes
    return GPU_PROCESS_BYTES + int((1 - spec.gpu_share) * (spec.weight_bytes + spec.kv_cache_bytes))


def device_bytes(spec: ModelSpec, gpus: int) -> int:
    """What a replica on so many GPUs takes of each of them. Layers are divided among them; the rest each one needs."""
    layers = spec.weight_bytes + spec.kv_cache_bytes
    rest = spec.memory_bytes - layers if layers else 0
    divided = int(spec.gpu_share * (spec.memory_bytes - rest))
    return -(-divided // gpus) + rest + GPU_CONTEXT_BYTES


def headroom(total: int) -> int:
    """What stays free for everything else on the node."""
    return min(int(total * _HEADROOM_SHARE), _HEADROOM_LIMIT)


def free_memory(nodes: Iterable[NodeView]) -> dict[str, int]:
    """What replicas may take of each host's own memory."""
    available: dict[str, int] = {}
    promised: Counter[str] = Counter()
    kept: dict[str, int] = {}
    for node in nodes:
        available[node.host] = min(node.memory_available, available.get(node.host, node.memory_available))
        promised[node.host] += node.promised
        kept.setdefault(node.host, headroom(node.memory_total))
    return {host: max(0, size - promised[host] - kept[host]) for host, size in available.items()}


def free_devices(nodes: Iterable[NodeView]) -> dict[str, int]:
    """What replicas may take of each GPU, which several nodes may have: each promised it to replicas of its own."""
    free: dict[str, int] = {}
    promised: Counter[str] = Counter()
    for node in nodes:
        for gpu in node.devices:
            free[gpu.uuid] = min(gpu.memory_free, free.get(gpu.uuid, gpu.memory_free))
            promised[gpu.uuid] += gpu.promised
    return {uuid: max(0, size - promised[uuid]) for uuid, size in free.items()}
