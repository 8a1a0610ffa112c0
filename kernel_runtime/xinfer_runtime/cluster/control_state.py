"""The controller's decisions: a state machine without I/O, events in, instructions out.

The table (`control_table.py`) says what is wanted, one row per model, and what is, one row per replica. Every event
ends in the same step (`reconcile.py`): replicas without a node are placed, nodes whose wants changed are told the whole
set again under a new generation, and what changed for watchers is published. Nothing is sent once and forgotten: a tick
repeats what a node has not acknowledged. `controller.py` does the I/O.
"""

from collections import Counter, deque

from msgspec.structs import replace

from xinfer_runtime.cluster.adoption import ADOPTION_SECONDS
from xinfer_runtime.cluster.control_events import (
    CancelAsked,
    DemandSeen,
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
    WakeAsked,
)
from xinfer_runtime.cluster.control_rows import ModelRow
from xinfer_runtime.cluster.demand import ModelDemand
from xinfer_runtime.cluster.rolling import Rolling
from xinfer_runtime.errors import (
    Cancelled,
    Conflict,
    ErrorInfo,
    InvalidRequest,
    ModelFileError,
    NotFound,
    from_info,
)
from xinfer_runtime.models import ModelEvent, ModelSpec, ModelStatus, ReplicaState

_EVENTS_KEPT = 100


class ControlState(Rolling):
    """The controller's table. `epoch` names this life of the controller."""

    def __init__(self, epoch: str) -> None:
        super().__init__(epoch)
        self._kept_nodes: tuple[str, ...] = ()

    def statuses(self) -> tuple[ModelStatus, ...]:
        """The table as watchers see it."""
        return tuple(self._published.values())

    def status(self, uid: str) -> ModelStatus | None:
        return self._published.get(uid)

    def draining(self, uid: str) -> bool:
        """Whether the model was terminated and its last replicas are still leaving."""
        model = self._models.get(uid)
        return model is not None and model.draining

    def check_launch(self, spec: ModelSpec, *, in_place: bool = False) -> None:
        """Raises Conflict where the uid is taken. A model that failed altogether may be replaced, and
        `in_place` one that is ready.
        """
        model = self._models.get(spec.uid)
        if model is None or (in_place and not model.draining and model.ready()):
            return
        failed = model.rows and all(row.replica.state is ReplicaState.FAILED for row in model.rows.values())
        if failed and not model.draining:
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
            case Restored(specs, nodes):
                self._settled_at = now + ADOPTION_SECONDS
                self._awaited = Counter(nodes) if nodes is not None else None
                self._kept_nodes = nodes or ()
                for spec in specs:
                    if spec.uid not in self._models:
                        self._add(spec, {}, now, "wanted since before the controller started")
            case LaunchAsked(spec, refusals, in_place):
                self._launch(spec, refusals, now, in_place=in_place)
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
                (self._draining.add if drain else self._draining.discard)(address)
                self._touch_node(address)
            case WakeAsked(uid):
                if self._wake(self._running(uid), now):
                    instructions.append(self._persist())
            case DemandSeen(report):
                self._demand_seen(report, now)
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
                other_nodes = self.settled(now) and self.lasting_nodes() != self._kept_nodes
                if self._follow_demand(now) or other_nodes:
                    instructions.append(self._persist())
        self._roll(now)
        return instructions + self._reconcile(now, place=self.settled(now), tick=isinstance(event, Ticked))

    # ---- events

    def _launch(self, spec: ModelSpec, refusals: dict[str, ErrorInfo], now: float, *, in_place: bool) -> None:
        self.check_launch(spec, in_place=in_place)
        if self._nodes and all(address in refusals for address in self._nodes):
            file_errors = [info for info in refusals.values() if info.code == ModelFileError.code]
            raise from_info((file_errors or list(refusals.values()))[0])
        model = self._models.get(spec.uid)
        if in_place and model is not None and model.ready():
            self._replace(model, spec, refusals, now)
            return
        spots = self._spots(spec, [spec.wish(number) for number in range(spec.replica)], now, refusals)
        self._drop(spec.uid)
        self._add(spec, refusals, now, f"launched with {spec.replica} replica{'s' if spec.replica > 1 else ''}")
        for row, spot in zip(self._models[spec.uid].rows.values(), spots, strict=False):
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
        model = self._models[spec.uid] = ModelRow(spec, {}, events, dict(refusals), ModelDemand(now))
        self._touched_models.add(spec.uid)
        for _ in range(0 if spec.asleep else spec.replica):
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
        least, most = model.spec.min_replicas or 1, model.spec.max_replicas
        if most is not None and not least <= count <= most:
            raise InvalidRequest(
                f"{uid!r} was launched to have {least} to {most} replicas, not {count}", param="replica"
            )
        self._resize(model, count, now)

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

    def _persist(self) -> Persist:
        self._kept_nodes = self.lasting_nodes()
        return Persist(tuple(model.spec for model in self._models.values() if not model.draining), self._kept_nodes)
