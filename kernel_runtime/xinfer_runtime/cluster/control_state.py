"""The controller's decisions: a state machine without I/O, events in, instructions out.

The table (`control_table.py`) says what is wanted, one row per model, and what is, one row per replica. Every event
ends in the same step (`reconcile.py`): replicas without a node are placed, nodes whose wants changed are told the whole
set again under a new generation, and what changed for watchers is published. Nothing is sent once and forgotten: a tick
repeats what a node has not acknowledged. `controller.py` does the I/O.
"""

from collections import deque

from msgspec.structs import replace

from xinfer_runtime.cluster.adoption import ADOPTION_SECONDS, row_to_adopt
from xinfer_runtime.cluster.control_events import (
    CancelAsked,
    DrainAsked,
    Event,
    HeartbeatSeen,
    Instruction,
    LaunchAsked,
    NodeLeft,
    Persist,
    RemovalAsked,
    ReplicasGone,
    Reported,
    Restored,
    ScaleAsked,
    SyncFailed,
    TerminateAsked,
    Ticked,
)
from xinfer_runtime.cluster.control_rows import ModelRow, NodeRow, ReplicaRow, leaving
from xinfer_runtime.cluster.placement import NoFit
from xinfer_runtime.cluster.protocol import NodeReport, ReplicaReport
from xinfer_runtime.cluster.reconcile import Reconciler
from xinfer_runtime.errors import (
    Cancelled,
    Conflict,
    DoesNotFit,
    ErrorInfo,
    InvalidRequest,
    ModelFileError,
    NotFound,
    from_info,
)
from xinfer_runtime.messages import ModelEvent, ModelSpec, ModelStatus, ReplicaState

_EVENTS_KEPT = 100


class ControlState(Reconciler):
    """The controller's table. `epoch` names this life of the controller."""

    def __init__(self, epoch: str) -> None:
        super().__init__(epoch)
        self._settled_at = 0.0

    def settled(self, now: float) -> bool:
        """Whether nodes had the time to say which restored models they still run; nothing is placed before."""
        return now >= self._settled_at or not self.unplaced()

    def statuses(self) -> tuple[ModelStatus, ...]:
        """The table as watchers see it."""
        return tuple(self._published.values())

    def status(self, uid: str) -> ModelStatus | None:
        return self._published.get(uid)

    def draining(self, uid: str) -> bool:
        """Whether the model was terminated and its last replicas are still leaving."""
        model = self._models.get(uid)
        return model is not None and model.draining

    def check_launch(self, spec: ModelSpec) -> None:
        """Raises Conflict where the uid is taken. A model that failed altogether may be replaced."""
        model = self._models.get(spec.uid)
        if model is None:
            return
        if all(row.replica.state is ReplicaState.FAILED for row in model.rows.values()) and not model.draining:
            return
        state = "is being terminated" if model.draining else f"is {model.status().state}"
        raise Conflict(
            f"the model uid {spec.uid!r} is in use: that model {state}; terminate it or choose another model_uid",
            param="model_uid",
        )

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Apply one event at unix time `now`. A launch or termination that is refused raises and changes nothing."""
        instructions: list[Instruction] = []
        match event:
            case Restored(specs):
                self._settled_at = now + ADOPTION_SECONDS
                for spec in specs:
                    if spec.uid not in self._models:
                        self._add(spec, {}, now, "wanted since before the controller started")
            case LaunchAsked(spec, refusals):
                self._launch(spec, refusals, now)
                instructions.append(self._persist())
            case TerminateAsked(uid):
                self._terminate(uid, now)
                instructions.append(self._persist())
            case CancelAsked(uid):
                self._cancel(uid, now)
                instructions.append(self._persist())
            case ScaleAsked(uid, count):
                self._scale(uid, count, now)
                instructions.append(self._persist())
            case RemovalAsked(uid, replica_id):
                self._remove(uid, replica_id, now)
                instructions.append(self._persist())
            case DrainAsked(address, drain):
                if address not in self._nodes:
                    raise NotFound(f"there is no node {address!r} in the cluster")
                self._nodes[address].draining = drain
                self._touch_node(address)
            case Reported(address, report):
                self._report(address, report, now)
            case SyncFailed(address):
                if address in self._nodes:
                    self._nodes[address].in_flight = False
            case HeartbeatSeen(address, boot, seq):
                node = self._nodes.get(address)
                if node is not None and (boot != node.report.boot or seq > node.report.seq):
                    node.behind = True
            case NodeLeft(address):
                self._node_left(address, now)
            case ReplicasGone(address):
                node = self._away.pop(address, None)
                if node is not None:
                    self._replicas_gone(node, now)
            case Ticked():
                pass
        return instructions + self._reconcile(now, place=self.settled(now), tick=isinstance(event, Ticked))

    # ---- events

    def _launch(self, spec: ModelSpec, refusals: dict[str, ErrorInfo], now: float) -> None:
        self.check_launch(spec)
        if self._nodes and all(address in refusals for address in self._nodes):
            file_errors = [info for info in refusals.values() if info.code == ModelFileError.code]
            raise from_info((file_errors or list(refusals.values()))[0])
        placement = self._place(spec, [spec.wish(number) for number in range(spec.replica)], refusals)
        if isinstance(placement, NoFit):
            raise DoesNotFit(placement.message)
        self._drop(spec.uid)
        self._add(spec, refusals, now, f"launched with {spec.replica} replica{'s' if spec.replica > 1 else ''}")
        for row, spot in zip(self._models[spec.uid].rows.values(), placement.spots, strict=True):
            self._assign(row, spot)

    def _drop(self, uid: str) -> None:
        """The model that failed altogether makes place for another one of its name."""
        model = self._models.get(uid)
        if model is not None:
            for row in list(model.rows.values()):
                self._delete_row(model, row)
            del self._models[uid]

    def _add(self, spec: ModelSpec, refusals: dict[str, ErrorInfo], now: float, why: str) -> None:
        events = deque([ModelEvent(type="INFO", time=now, content=why)], maxlen=_EVENTS_KEPT)
        model = self._models[spec.uid] = ModelRow(spec, {}, events, dict(refusals))
        for _ in range(spec.replica):
            self._add_row(model)

    def _terminate(self, uid: str, now: float, why: str = "terminating", error: ErrorInfo | None = None) -> None:
        model = self._running(uid)
        model.draining = True
        model.tell("INFO", now, why)
        self._touched_models.add(uid)
        for row in model.rows.values():
            self._leave(row, why, error)

    def _cancel(self, uid: str, now: float) -> None:
        model = self._running(uid)
        if model.status().state is ReplicaState.READY:
            raise Conflict(f"the launch of {uid!r} is over: the model is ready; terminate it instead", param="model")
        self._terminate(uid, now, "launch cancelled", Cancelled(f"the launch of {uid!r} was cancelled").info)

    def _scale(self, uid: str, count: int, now: float) -> None:
        model = self._running(uid)
        if count < 1:
            raise InvalidRequest(
                f"a model has one replica or more, not {count}; terminate it to have none", param="replica"
            )
        more = count - len(model.staying())
        if more > 0:
            first = len(model.rows)
            placement = self._place(model.spec, [model.spec.wish(first + number) for number in range(more)])
            if isinstance(placement, NoFit):
                raise DoesNotFit(placement.message)
            for number, spot in enumerate(placement.spots):
                self._assign(self._add_row(model, model.spec.wish(first + number)), spot)
        for replica_id in model.superfluous(max(0, -more)):
            self._remove_row(model, replica_id)
        self._touched_models.add(uid)
        if count != model.spec.replica:
            model.tell("INFO", now, f"from {model.spec.replica} to {count} replicas")
        model.spec = replace(model.spec, replica=count)

    def _remove(self, uid: str, replica_id: str, now: float) -> None:
        """Removing the last replica ends the model."""
        model = self._running(uid)
        staying = [row.replica.id for row in model.staying()]
        row = model.rows.get(replica_id)
        if row is None or row.leaving:
            raise NotFound(f"{uid!r} has no replica {replica_id!r}; it has {', '.join(staying)}", param="replica_id")
        replica_id = row.successor or replica_id
        if staying == [replica_id]:
            self._terminate(uid, now)
            return
        self._remove_row(model, replica_id)
        model.spec = replace(model.spec, replica=max(1, len(staying) - 1))
        model.tell("INFO", now, f"{replica_id} is removed")

    def _remove_row(self, model: ModelRow, replica_id: str) -> None:
        """The replica leaves, and with it the one that it was to succeed."""
        for row in model.rows.values():
            if replica_id in (row.replica.id, row.successor):
                self._leave(row, "removed")

    def _report(self, address: str, report: NodeReport, now: float) -> None:
        node = self._nodes.get(address)
        if node is None or node.report.boot != report.boot:
            before, node = node, NodeRow(report, generation=self._next_generation())
            if before is not None:
                node.draining, node.rows = before.draining, before.rows
            self._nodes[address] = node
            self._adopt(address, report, now)
            if not report.outlasts:
                # What ends with its worker is not to be waited for.
                self._settled_at = now
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

    def _persist(self) -> Persist:
        return Persist(tuple(model.spec for model in self._models.values() if not model.draining))
