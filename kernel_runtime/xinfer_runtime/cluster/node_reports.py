"""What nodes say, applied to the table: their reports, their end, and replicas that outlasted the controller."""

from collections import Counter

from xinfer_runtime.cluster.adoption import row_to_adopt
from xinfer_runtime.cluster.control_rows import ModelRow, NodeRow, ReplicaRow, leaving
from xinfer_runtime.cluster.placement import NoFit
from xinfer_runtime.cluster.protocol import NodeReport, ReplicaReport
from xinfer_runtime.cluster.reconcile import Reconciler
from xinfer_runtime.errors import ModelFileError
from xinfer_runtime.models import ReplicaState


class NodeReports(Reconciler):
    """The table as nodes tell it."""

    def __init__(self, epoch: str) -> None:
        super().__init__(epoch)
        self._settled_at = 0.0
        self._awaited: Counter[str] | None = None
        """The labels of the nodes that may still run restored models, None where they are not known."""

    def settled(self, now: float) -> bool:
        """Whether nodes had the time to say which restored models they still run; nothing is placed before."""
        return now >= self._settled_at or not self.unplaced()

    def _report(self, address: str, report: NodeReport, now: float) -> None:
        node = self._nodes.get(address)
        if node is None or node.report.boot != report.boot:
            before, node = node, NodeRow(report, generation=self._next_generation())
            if before is not None:
                node.draining, node.rows = before.draining, before.rows
            self._nodes[address] = node
            self._adopt(address, report, now)
            if now < self._settled_at and (not report.outlasts or self._all_told()):
                # What ends with its worker is not to be waited for, and neither is who has nothing to tell.
                self._settled_at = now
                self._touched_models |= self._unplaced
        elif report.seq <= node.report.seq:
            return
        node.report = report
        node.in_flight = node.behind = False
        if report.epoch == self.epoch:
            node.acked = max(node.acked, report.generation)
        self._touch_node(address)
        for event in report.events:
            if event.number > node.last_event:
                node.last_event = event.number
                if event.uid in self._models:
                    self._models[event.uid].events.append(event.event)
                    self._touched_models.add(event.uid)
        for reported in report.replicas:
            row = node.rows.get(reported.incarnation)
            if row is not None:
                self._update(self._models[row.replica.uid], row, reported, now)

    def _all_told(self) -> bool:
        """Whether all nodes reported that may still run restored models."""
        if self._awaited is None:
            return False
        return self._awaited <= Counter(node.label for node in self._nodes.values())

    def _update(self, model: ModelRow, row: ReplicaRow, reported: ReplicaReport, now: float) -> None:
        before = row.replica
        row.heard(reported.replica, reported.memory_private)
        if row.leaving:
            row.replica = leaving(row.replica, before.message, before.error)
        if row.replica != before:
            self._touched_models.add(model.spec.uid)
        if row.leaving:
            return
        if row.replica.state is ReplicaState.READY:
            if before.state is not ReplicaState.READY:
                model.demand.last_used = max(model.demand.last_used, now)
            for other in model.rows.values():
                if other.successor == row.replica.id and not other.leaving:
                    self._leave(other, f"succeeded by {row.replica.id}")
        elif (
            row.replica.state is ReplicaState.FAILED
            and row.replica.error is not None
            and row.replica.error.code == ModelFileError.code
        ):
            # The file is missing or broken there; perhaps another node has a good one.
            model.refusals[row.node] = row.replica.error
            if len(model.refusals) < len(self._nodes) and not isinstance(self._place(model.spec, [row.wish]), NoFit):
                self._unassign(row, f"moving away from {row.replica.node}: {row.replica.error.message}")
                model.tell("WARNING", now, f"{row.replica.id}: moving")

    def _node_left(self, address: str, now: float) -> None:
        node = self._nodes.pop(address, None)
        self._views.pop(address, None)
        self._draining.discard(address)
        for model in self._models.values():
            model.refusals.pop(address, None)
        if node is None:
            return
        if node.report.outlasts:
            # Gateways go on using the replicas; their links tell whether they are there.
            self._away[address] = node
        else:
            self._replicas_gone(node, now)

    def _replicas_gone(self, node: NodeRow, now: float) -> None:
        for row in list(node.rows.values()):
            content = f"replica {row.replica.id}: node {node.label} left the cluster"
            self._models[row.replica.uid].tell("WARNING", now, content)
            if row.successor:
                self._leave(row, content)
            elif row.leaving:
                self._touch(row)
            else:
                self._unassign(row, content)

    def _adopt(self, address: str, report: NodeReport, now: float) -> None:
        """Give rows that have no ready process of their own to the processes that a new node tells of."""
        for reported in report.replicas:
            model = self._models.get(reported.replica.uid)
            row = row_to_adopt(model, address, reported) if model is not None else None
            if model is not None and row is not None:
                self._give(model, row, address, reported)
                model.tell("INFO", now, f"{row.replica.id}: found running on {row.replica.node}")
