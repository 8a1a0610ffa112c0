"""The controller's decisions: a state machine without I/O, events in, instructions out.

The table says what is wanted (one row per model) and what is (one row per replica). Every event ends in the same
reconcile step: replicas without a node are placed, nodes whose wants changed are told the whole set again under a new
generation, and what changed for watchers is published. Nothing is sent once and forgotten: a tick repeats what a node
has not acknowledged. `controller.py` does the I/O.
"""

from collections import deque
from collections.abc import Iterable

from msgspec.structs import replace

from xinfer_runtime.cluster.adoption import ADOPTION_SECONDS, adopt
from xinfer_runtime.cluster.control_events import (
    CancelAsked,
    DrainAsked,
    Event,
    HeartbeatSeen,
    Instruction,
    LaunchAsked,
    NodeLeft,
    Persist,
    Publish,
    RemovalAsked,
    ReplicasGone,
    Reported,
    Restored,
    ScaleAsked,
    SendSync,
    SyncFailed,
    TerminateAsked,
    Ticked,
)
from xinfer_runtime.cluster.control_rows import ModelRow, NodeRow, ReplicaRow, leaving
from xinfer_runtime.cluster.control_table import ControlTable
from xinfer_runtime.cluster.placement import NoFit, place
from xinfer_runtime.cluster.protocol import NodeReport, ReplicaReport, ReplicaWant, Sync
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


class ControlState(ControlTable):
    """The controller's table. `epoch` names this life of the controller."""

    def __init__(self, epoch: str) -> None:
        super().__init__(epoch)
        self._published: dict[str, ModelStatus] = {}
        self._generations = 0
        self._settled_at = 0.0
        self._away: dict[str, str] = {}
        """Labels of the nodes without a Dask worker whose replicas may be running, by the worker's former address."""

    def settled(self, now: float) -> bool:
        """Whether nodes had the time to say which restored models they still run; nothing is placed before."""
        return now >= self._settled_at or not any(
            not row.node and not row.leaving for model in self._models.values() for row in model.rows.values()
        )

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
                self._replicas_gone(address, self._away.pop(address, address), now)
            case Ticked():
                pass
        if self.settled(now):
            self._place_unplaced()
        self._move_from_draining(now)
        self._forget_left()
        instructions += self._syncs(repeat=isinstance(event, Ticked))
        instructions += self._publications()
        return instructions

    # ---- events

    def _launch(self, spec: ModelSpec, refusals: dict[str, ErrorInfo], now: float) -> None:
        self.check_launch(spec)
        if self._nodes and all(address in refusals for address in self._nodes):
            file_errors = [info for info in refusals.values() if info.code == ModelFileError.code]
            raise from_info((file_errors or list(refusals.values()))[0])
        replaced = self._models.pop(spec.uid, None)
        placement = place(spec, self._views(spec, refusals))
        if isinstance(placement, NoFit):
            if replaced is not None:
                self._models[spec.uid] = replaced
            raise DoesNotFit(placement.message)
        self._add(spec, refusals, now, f"launched with {spec.replica} replica{'s' if spec.replica > 1 else ''}")
        for row, address in zip(self._models[spec.uid].rows.values(), placement.addresses, strict=True):
            self._assign(row, address)

    def _add(self, spec: ModelSpec, refusals: dict[str, ErrorInfo], now: float, why: str) -> None:
        events = deque([ModelEvent(type="INFO", time=now, content=why)], maxlen=_EVENTS_KEPT)
        model = self._models[spec.uid] = ModelRow(spec, {}, events, dict(refusals))
        for _ in range(spec.replica):
            self._add_row(model)

    def _terminate(self, uid: str, now: float, why: str = "terminating", error: ErrorInfo | None = None) -> None:
        model = self._running(uid)
        model.draining = True
        model.tell("INFO", now, why)
        for row in model.rows.values():
            row.leave(why, error)

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
            placement = place(model.spec, self._views(model.spec, model.refusals), more)
            if isinstance(placement, NoFit):
                raise DoesNotFit(placement.message)
            for address in placement.addresses:
                self._assign(self._add_row(model), address)
        for replica_id in model.superfluous(max(0, -more)):
            self._leave(model, replica_id)
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
        self._leave(model, replica_id)
        model.spec = replace(model.spec, replica=max(1, len(staying) - 1))
        model.tell("INFO", now, f"{replica_id} is removed")

    def _leave(self, model: ModelRow, replica_id: str) -> None:
        """The replica leaves, and with it the one that it was to succeed."""
        for row in model.rows.values():
            if replica_id in (row.replica.id, row.successor):
                row.leave("removed")

    def _report(self, address: str, report: NodeReport, now: float) -> None:
        node = self._nodes.get(address)
        if node is None or node.report.boot != report.boot:
            draining = node is not None and node.draining
            node = self._nodes[address] = NodeRow(report, generation=self._next_generation(), draining=draining)
            for row in adopt(self._models.values(), address, report):
                self._models[row.replica.uid].tell(
                    "INFO", now, f"{row.replica.id}: found running on {row.replica.node}"
                )
            if not report.outlasts:
                # What ends with its worker is not to be waited for.
                self._settled_at = now
        elif report.seq <= node.report.seq:
            return
        node.report = report
        node.in_flight = node.behind = False
        if report.epoch == self.epoch:
            node.acked = max(node.acked, report.generation)
        for event in report.events:
            if event.number > node.last_event:
                node.last_event = event.number
                if event.uid in self._models:
                    self._models[event.uid].events.append(event.event)
        reported = {row.incarnation: row for row in report.replicas}
        for model in self._models.values():
            for row in model.rows.values():
                if row.node == address and row.incarnation in reported:
                    self._update(model, row, reported[row.incarnation], now)

    def _update(self, model: ModelRow, row: ReplicaRow, reported: ReplicaReport, now: float) -> None:
        before = row.replica
        row.memory_private = reported.memory_private
        row.replica = replace(reported.replica, restarts=row.restarts + reported.replica.restarts)
        if row.leaving:
            row.replica = leaving(row.replica, before.message, before.error)
        elif row.replica.state is ReplicaState.READY:
            for other in model.rows.values():
                if other.successor == row.replica.id and not other.leaving:
                    other.leave(f"succeeded by {row.replica.id}")
        elif (
            row.replica.state is ReplicaState.FAILED
            and row.replica.error is not None
            and row.replica.error.code == ModelFileError.code
        ):
            # The file is missing or broken there; perhaps another node has a good one.
            model.refusals[row.node] = row.replica.error
            others = [address for address in self._nodes if address not in model.refusals]
            if others and not isinstance(place(model.spec, self._views(model.spec, model.refusals), 1), NoFit):
                self._unassign(row, f"moving away from {row.replica.node}: {row.replica.error.message}")
                model.tell("WARNING", now, f"{row.replica.id}: moving")

    def _node_left(self, address: str, now: float) -> None:
        node = self._nodes.pop(address, None)
        for model in self._models.values():
            model.refusals.pop(address, None)
        label = node.report.inventory.label if node is not None else address
        if node is not None and node.report.outlasts:
            # Gateways go on using the replicas; their links tell whether they are there.
            self._away[address] = label
        else:
            self._replicas_gone(address, label, now)

    def _replicas_gone(self, address: str, label: str, now: float) -> None:
        for model in self._models.values():
            for row in model.rows.values():
                if row.node == address:
                    content = f"replica {row.replica.id}: node {label} left the cluster"
                    model.tell("WARNING", now, content)
                    if row.successor:
                        row.leave(content)
                    elif not row.leaving:
                        self._unassign(row, content)

    # ---- reconcile

    def _place_unplaced(self) -> None:
        for model in self._models.values():
            if model.draining:
                continue
            for row in model.rows.values():
                if row.node or row.leaving:
                    continue
                placement = place(model.spec, self._views(model.spec, model.refusals), 1)
                if isinstance(placement, NoFit):
                    row.replica = replace(row.replica, message=placement.message)
                else:
                    self._assign(row, placement.addresses[0])

    def _move_from_draining(self, now: float) -> None:
        """A ready replica stays until another one of its model is ready elsewhere; any other simply moves."""
        for address, node in self._nodes.items():
            if not node.draining:
                continue
            for model in self._models.values():
                for row in [row for row in model.staying() if row.node == address]:
                    placement = place(model.spec, self._views(model.spec, model.refusals), 1)
                    if isinstance(placement, NoFit):
                        continue
                    model.tell("INFO", now, f"{row.replica.id}: moving away from {node.report.inventory.label}")
                    if row.replica.state is ReplicaState.READY:
                        successor = self._add_row(model)
                        row.successor = successor.replica.id
                        self._assign(successor, placement.addresses[0])
                    else:
                        self._unassign(row, f"{node.report.inventory.label} is being drained")
                        self._assign(row, placement.addresses[0])

    def _forget_left(self) -> None:
        """Drop the leaving replicas that no node runs any more, and terminated models with their last replica."""
        for uid, model in list(self._models.items()):
            for replica_id, row in list(model.rows.items()):
                node = self._nodes.get(row.node)
                if row.leaving and (node is None or not node.runs(row)):
                    del model.rows[replica_id]
            if model.draining and not model.rows:
                del self._models[uid]

    def _syncs(self, *, repeat: bool) -> Iterable[SendSync]:
        wants: dict[str, list[ReplicaWant]] = {address: [] for address in self._nodes}
        for model in self._models.values():
            for row in model.rows.values():
                if row.node in wants and not row.leaving:
                    want = ReplicaWant(id=row.replica.id, incarnation=row.incarnation, spec=model.spec)
                    wants[row.node].append(want)
        for address, node in self._nodes.items():
            changed = tuple(wants[address]) != node.wants
            if changed:
                node.generation = self._next_generation()
                node.wants = tuple(wants[address])
            late = repeat and not node.in_flight and (node.acked != node.generation or node.behind)
            if changed or late:
                node.in_flight = True
                yield SendSync(address, Sync(epoch=self.epoch, generation=node.generation, wants=node.wants))

    def _next_generation(self) -> int:
        """Counted over all nodes, so that no node ever sees a lower one, not even one that left and came back."""
        self._generations += 1
        return self._generations

    def _publications(self) -> Iterable[Publish]:
        for uid, model in self._models.items():
            status = model.status()
            if self._published.get(uid) != status:
                self._published[uid] = status
                yield Publish(uid, status)
        for uid in [uid for uid in self._published if uid not in self._models]:
            del self._published[uid]
            yield Publish(uid, None)

    def _persist(self) -> Persist:
        return Persist(tuple(model.spec for model in self._models.values() if not model.draining))
