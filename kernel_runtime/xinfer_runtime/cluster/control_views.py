"""What placement is shown of a node: what it measured, and what its replicas will still take of that."""

from collections import Counter
from collections.abc import Iterable

from xinfer_runtime.cluster.control_rows import NodeRow, ReplicaRow
from xinfer_runtime.cluster.placement_room import DeviceView, NodeView, device_bytes, host_bytes
from xinfer_runtime.messages import ReplicaState

_DRAINED = "it is being drained for maintenance"


def node_view(address: str, node: NodeRow) -> NodeView:
    inventory = node.report.inventory
    rows = [*node.rows.values(), *node.moved.values()]
    on_devices = _promised_on_devices(rows)
    return NodeView(
        address=address,
        label=inventory.label,
        host=inventory.host,
        memory_total=inventory.memory_total,
        memory_available=inventory.memory_available,
        promised=sum(_promised(row) for row in rows),
        ip=inventory.address,
        labels=inventory.labels,
        devices=tuple(
            DeviceView(
                uuid=gpu.uuid,
                index=gpu.index,
                name=gpu.name,
                memory_total=gpu.memory_total,
                memory_free=gpu.memory_free,
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
