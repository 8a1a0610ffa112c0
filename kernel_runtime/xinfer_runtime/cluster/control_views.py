"""What placement is shown of a node: what it measured, and what its replicas will still take of that."""

from collections import Counter
from collections.abc import Collection, Iterable

from xinfer_runtime.cluster.control_rows import NodeRow, ReplicaRow
from xinfer_runtime.cluster.placement_room import GPU_CONTEXT_BYTES, DeviceView, NodeView, device_bytes, host_bytes
from xinfer_runtime.models import ReplicaState

_DRAINED = "it is being drained for maintenance"


def node_view(address: str, node: NodeRow, without: Collection[str] = ()) -> NodeView:
    """The node now, or as it will be without the replicas whose incarnations are in `without`."""
    inventory = node.report.inventory
    everything = [*node.rows.values(), *node.moved.values()]
    rows = [row for row in everything if row.incarnation not in without]
    gone = [row for row in everything if row.incarnation in without]
    on_devices = _promised_on_devices(rows)
    freed = _held_on_devices(gone)
    return NodeView(
        address=address,
        label=inventory.label,
        host=inventory.host,
        memory_total=inventory.memory_total,
        memory_available=inventory.memory_available + sum(row.memory_private for row in gone),
        promised=sum(_promised(row) for row in rows),
        ip=inventory.address,
        labels=inventory.labels,
        devices=tuple(
            DeviceView(
                uuid=gpu.uuid,
                index=gpu.index,
                name=gpu.name,
                memory_total=gpu.memory_total,
                memory_free=min(gpu.memory_free + freed[gpu.uuid], gpu.memory_total),
                promised=on_devices[gpu.uuid],
                divided=bool(gpu.parent),
            )
            for gpu in inventory.gpus
        ),
        engines=inventory.engines,
        refusal=_DRAINED if node.draining else "",
    )


def _promised(row: ReplicaRow) -> int:
    """Of the node's own memory. Mapped weights are page cache, which the kernel drops: they stay promised."""
    if row.want is None or row.replica.state is ReplicaState.FAILED:
        return 0
    return max(0, host_bytes(row.want.spec, len(row.devices)) - row.memory_private)


def _promised_on_devices(rows: Iterable[ReplicaRow]) -> Counter[str]:
    """Of each GPU. A replica that crashed and is about to be started again keeps its place."""
    promised: Counter[str] = Counter()
    for row in rows:
        if row.want is not None and not row.settled and not row.over:
            for uuid in row.devices:
                promised[uuid] += device_bytes(row.want.spec, len(row.devices))
    return promised


def _held_on_devices(rows: Iterable[ReplicaRow]) -> Counter[str]:
    """What the GPUs get back when these end."""
    held: Counter[str] = Counter()
    for row in rows:
        if row.want is not None and row.settled:
            for uuid in row.devices:
                held[uuid] += device_bytes(row.want.spec, len(row.devices)) - GPU_CONTEXT_BYTES
    return held
