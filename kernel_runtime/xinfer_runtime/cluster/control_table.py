"""The controller's table: what it answers about models and nodes, and how a replica gets its place and loses it.

It notes which models and nodes were touched since the last reconcile step, which then looks at those alone: what an
event costs does not grow with the cluster.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from xinfer_runtime.cluster.control_rows import ModelRow, NodeRow, ReplicaRow
from xinfer_runtime.cluster.control_views import node_view
from xinfer_runtime.cluster.placement import NoFit, Placement, place
from xinfer_runtime.cluster.placement_room import NodeView, Presence, Spot
from xinfer_runtime.cluster.protocol import NodeStatus, ReplicaReport, ReplicaWant
from xinfer_runtime.errors import ErrorInfo, ModelNotFound, NotFound
from xinfer_runtime.models import ModelSpec, Replica, ReplicaState, ReplicaWish


class ControlTable:
    """The rows. `ControlState` decides what becomes of them; `epoch` names this life of the controller."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self._models: dict[str, ModelRow] = {}
        self._nodes: dict[str, NodeRow] = {}
        self._away: dict[str, NodeRow] = {}
        """Nodes without a Dask worker whose replicas may be running, by the worker's former address."""
        self._views: dict[str, NodeView] = {}
        self._touched_models: set[str] = set()
        self._touched_nodes: set[str] = set()
        self._unplaced: set[str] = set()
        """The uids of models with replicas that have no node."""
        self._draining: set[str] = set()
        """The addresses of nodes that are being drained."""
        self._incarnations = 0

    # ---- what it answers

    def nodes(self) -> tuple[str, ...]:
        """The addresses of the nodes whose agents reported."""
        return tuple(self._nodes)

    def node_statuses(self) -> tuple[NodeStatus, ...]:
        return tuple(
            NodeStatus(
                address=address,
                inventory=node.report.inventory,
                draining=node.draining,
                replicas=self.replicas_on(address),
            )
            for address, node in self._nodes.items()
        )

    def busy_nodes(self) -> frozenset[str]:
        """The addresses of the nodes that run or will run replicas."""
        return frozenset(address for address, node in self._nodes.items() if node.rows)

    def lasting_nodes(self) -> tuple[str, ...]:
        """The labels of the nodes whose replicas would outlast the controller; nodes may share one."""
        nodes = [*self._nodes.values(), *self._away.values()]
        return tuple(sorted(node.label for node in nodes if node.report.outlasts))

    def unplaced(self) -> int:
        """How many replicas wait for a node."""
        return sum(len(self._models[uid].unplaced()) for uid in self._unplaced & self._models.keys())

    def find_nodes(self, name: str) -> tuple[str, ...]:
        """The addresses of the nodes with this address or label. Raises NotFound, naming those there are."""
        labels = {address: node.label for address, node in self._nodes.items()}
        found = tuple(address for address, label in labels.items() if name in (address, label))
        if not found:
            known = ", ".join(f"{label} ({address})" for address, label in labels.items()) or "none"
            raise NotFound(f"there is no node {name!r} in the cluster; those there are: {known}", param="node")
        return found

    def replicas_on(self, address: str) -> tuple[str, ...]:
        """The ids of the replicas that the node runs or will run, those that leave it included."""
        node = self._holder(address)
        return tuple(row.replica.id for row in node.rows.values()) if node is not None else ()

    def stuck_on(self, address: str) -> tuple[str, ...]:
        """Of a node that is being drained: why each replica that stays there does."""
        reasons = []
        for row in self._staying_on(address):
            model = self._models[row.replica.uid]
            if model.spec.pinned:
                reasons.append(f"{row.replica.id} stays: its model is pinned")
            elif isinstance(fit := self._place(model.spec, [row.wish]), NoFit):
                reasons.append(f"{row.replica.id} stays: {fit.message}")
        return tuple(reasons)

    # ---- rows

    def _running(self, uid: str) -> ModelRow:
        model = self._models.get(uid)
        if model is None or model.draining:
            raise ModelNotFound(f"there is no model {uid!r} that runs", param="model")
        return model

    def _staying_on(self, address: str) -> list[ReplicaRow]:
        node = self._nodes.get(address)
        rows = node.rows.values() if node is not None else ()
        return [row for row in rows if not row.leaving and not row.successor]

    def _add_row(self, model: ModelRow, wish: ReplicaWish | None = None) -> ReplicaRow:
        number = model.free_number()
        replica = Replica(id=f"{model.spec.uid}-{number}", uid=model.spec.uid, message="waiting for a node")
        row = ReplicaRow(replica, self._new_incarnation(), wish or model.spec.wish(number))
        model.rows[replica.id] = row
        self._unplaced.add(replica.uid)
        self._touch(row)
        return row

    def _delete_row(self, model: ModelRow, row: ReplicaRow) -> None:
        self._touch(row)
        del model.rows[row.replica.id]
        node = self._holder(row.node)
        if node is not None:
            node.rows.pop(row.incarnation, None)

    def _leave(self, row: ReplicaRow, why: str, error: ErrorInfo | None = None) -> None:
        row.leave(why, error)
        self._touch(row)

    def _assign(self, row: ReplicaRow, spot: Spot) -> None:
        node = self._nodes[spot.address]
        model = self._models[row.replica.uid]
        row.node = spot.address
        row.want = ReplicaWant(
            id=row.replica.id,
            incarnation=row.incarnation,
            spec=replace(model.spec, n_gpu=_gpus_wanted(row.wish, spot, node)),
            devices=spot.devices,
        )
        node.rows[row.incarnation] = row
        row.replica = replace(
            row.replica,
            node=node.label,
            state=ReplicaState.PLACING,
            message="starting",
            error=None,
            devices=spot.devices,
        )
        self._touch(row)

    def _unassign(self, row: ReplicaRow, why: str) -> None:
        self._vacate(row)
        if row.replica.pid:
            row.restarts = row.replica.restarts + 1
        row.node, row.want, row.memory_private, row.settled = "", None, 0, False
        row.incarnation = self._new_incarnation()
        row.replica = Replica(
            id=row.replica.id, uid=row.replica.uid, message=f"{why}; waiting for a node", restarts=row.restarts
        )
        self._unplaced.add(row.replica.uid)

    def _give(self, model: ModelRow, row: ReplicaRow, address: str, reported: ReplicaReport) -> None:
        """The row is that of a process which runs already."""
        self._vacate(row)
        replica = reported.replica
        if row.replica.id != replica.id:
            # The links of gateways know the process by its own name.
            del model.rows[row.replica.id]
            model.rows[replica.id] = row
        row.node, row.incarnation, row.restarts = address, reported.incarnation, 0
        row.want = ReplicaWant(
            id=replica.id, incarnation=reported.incarnation, spec=model.spec, devices=replica.devices
        )
        row.heard(replace(replica, restarts=0), reported.memory_private)
        self._nodes[address].rows[row.incarnation] = row
        self._touch(row)

    def _vacate(self, row: ReplicaRow) -> None:
        """Whatever ran for the row where it was is not its own any more; it may take a while to end."""
        self._touch(row)
        node = self._holder(row.node)
        if node is not None:
            node.rows.pop(row.incarnation, None)
            node.moved[row.incarnation] = ReplicaRow(
                row.replica, row.incarnation, row.wish, want=row.want, settled=row.settled
            )

    def _holder(self, address: str) -> NodeRow | None:
        return self._nodes.get(address) or self._away.get(address)

    def _touch(self, row: ReplicaRow) -> None:
        self._touched_models.add(row.replica.uid)
        if row.node:
            self._touch_node(row.node)

    def _touch_node(self, address: str) -> None:
        self._touched_nodes.add(address)
        self._views.pop(address, None)

    def _new_incarnation(self) -> str:
        self._incarnations += 1
        return f"{self.epoch}.{self._incarnations}"

    # ---- places

    def _place(
        self,
        spec: ModelSpec,
        wishes: list[ReplicaWish],
        refusals: Mapping[str, ErrorInfo] | None = None,
        addresses: Iterable[str] | None = None,
    ) -> Placement | NoFit:
        """Spots for replicas of `spec`, on the nodes at `addresses` (default: all of them)."""
        model = self._models.get(spec.uid)
        rows = model.rows.values() if model is not None else ()
        presence = Presence(
            nodes=Counter(row.node for row in rows if row.node),
            devices=Counter(uuid for row in rows for uuid in row.devices),
        )
        if refusals is None:
            refusals = model.refusals if model is not None else {}
        views = [self._view(address) for address in (self._nodes if addresses is None else addresses)]
        reasons = {address: info.message for address, info in refusals.items()}
        return place(spec, views, wishes, presence=presence, refusals=reasons)

    def _view(self, address: str) -> NodeView:
        view = self._views.get(address)
        if view is None:
            view = self._views[address] = node_view(address, self._nodes[address])
        return view


def _gpus_wanted(wish: ReplicaWish, spot: Spot, node: NodeRow) -> int | None:
    """What the engine is told: open only where nobody knows of GPUs, such as on a Mac."""
    if spot.devices:
        return len(spot.devices)
    return 0 if node.report.inventory.gpus else wish.n_gpu
