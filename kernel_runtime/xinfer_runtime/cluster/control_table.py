"""The controller's table: what it answers about models and nodes, and how a replica gets its place and loses it."""

from msgspec.structs import replace

from xinfer_runtime.cluster.control_rows import ModelRow, NodeRow, ReplicaRow
from xinfer_runtime.cluster.placement import NodeView, NoFit, place
from xinfer_runtime.errors import ErrorInfo, ModelNotFound, NotFound
from xinfer_runtime.messages import ModelSpec, Replica, ReplicaState

_DRAINED = "it is being drained for maintenance"


class ControlTable:
    """The rows. `ControlState` decides what becomes of them; `epoch` names this life of the controller."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self._models: dict[str, ModelRow] = {}
        self._nodes: dict[str, NodeRow] = {}
        self._incarnations = 0

    def nodes(self) -> tuple[str, ...]:
        """The addresses of the nodes whose agents reported."""
        return tuple(self._nodes)

    def busy_nodes(self) -> frozenset[str]:
        """The addresses of the nodes that run or will run replicas."""
        return frozenset(row.node for model in self._models.values() for row in model.rows.values() if row.node)

    def find_nodes(self, name: str) -> tuple[str, ...]:
        """The addresses of the nodes with this address or label. Raises NotFound, naming those there are."""
        labels = {address: node.report.inventory.label for address, node in self._nodes.items()}
        found = tuple(address for address, label in labels.items() if name in (address, label))
        if not found:
            known = ", ".join(f"{label} ({address})" for address, label in labels.items()) or "none"
            raise NotFound(f"there is no node {name!r} in the cluster; those there are: {known}", param="node")
        return found

    def replicas_on(self, address: str) -> tuple[str, ...]:
        """The ids of the replicas that the node runs or will run, those that leave it included."""
        return tuple(r.replica.id for m in self._models.values() for r in m.rows.values() if r.node == address)

    def stuck_on(self, address: str) -> tuple[str, ...]:
        """Of a node that is being drained: why each replica that nothing else can take stays there."""
        return tuple(
            f"{row.replica.id} stays: {fit.message}"
            for model in self._models.values()
            for row in model.staying()
            if row.node == address
            and isinstance(fit := place(model.spec, self._views(model.spec, model.refusals), 1), NoFit)
        )

    def _add_row(self, model: ModelRow) -> ReplicaRow:
        self._incarnations += 1
        replica = Replica(id=model.free_id(), uid=model.spec.uid, message="waiting for a node")
        row = model.rows[replica.id] = ReplicaRow(replica, incarnation=f"{self.epoch}.{self._incarnations}")
        return row

    def _running(self, uid: str) -> ModelRow:
        model = self._models.get(uid)
        if model is None or model.draining:
            raise ModelNotFound(f"there is no model {uid!r} that runs", param="model")
        return model

    def _assign(self, row: ReplicaRow, address: str) -> None:
        row.node = address
        row.replica = replace(
            row.replica,
            node=self._nodes[address].report.inventory.label,
            state=ReplicaState.PLACING,
            message="starting",
            error=None,
        )

    def _unassign(self, row: ReplicaRow, why: str) -> None:
        self._incarnations += 1
        if row.replica.pid:
            row.restarts = row.replica.restarts + 1
        row.node = ""
        row.memory_private = 0
        row.incarnation = f"{self.epoch}.{self._incarnations}"
        row.replica = Replica(
            id=row.replica.id, uid=row.replica.uid, message=f"{why}; waiting for a node", restarts=row.restarts
        )

    def _views(self, spec: ModelSpec, refusals: dict[str, ErrorInfo]) -> list[NodeView]:
        views = []
        for address, node in self._nodes.items():
            promised = same_model = 0
            for model in self._models.values():
                for row in model.rows.values():
                    if row.node == address:
                        if row.replica.state is not ReplicaState.FAILED:
                            promised += max(0, model.spec.memory_bytes - row.memory_private)
                        same_model += model.spec.uid == spec.uid
            inventory = node.report.inventory
            refusal = _DRAINED if node.draining else refusals[address].message if address in refusals else ""
            views.append(
                NodeView(
                    address=address,
                    label=inventory.label,
                    host=inventory.host,
                    memory_total=inventory.memory_total,
                    memory_available=inventory.memory_available,
                    promised=promised,
                    same_model=same_model,
                    refusal=refusal,
                )
            )
        return views
