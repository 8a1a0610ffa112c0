"""The controller's decisions: a state machine without I/O, events in, instructions out.

The table says what is wanted (one row per model) and what is (one row per replica). Every event ends in the same
reconcile step: replicas without a node are placed, nodes whose wants changed are told the whole set again under a new
generation, and what changed for watchers is published. Nothing is sent once and forgotten: a tick repeats what a node
has not acknowledged. `controller.py` does the I/O.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from xinfer_runtime.cluster.control_events import (
    Event,
    HeartbeatSeen,
    Instruction,
    LaunchAsked,
    NodeLeft,
    Persist,
    Publish,
    Reported,
    Restored,
    SendSync,
    SyncFailed,
    TerminateAsked,
    Ticked,
)
from xinfer_runtime.cluster.placement import NodeView, NoFit, place
from xinfer_runtime.cluster.protocol import NodeReport, ReplicaReport, ReplicaWant, Sync
from xinfer_runtime.errors import Conflict, DoesNotFit, ErrorInfo, ModelFileError, ModelNotFound, from_info
from xinfer_runtime.messages import ModelEvent, ModelSpec, ModelStatus, Replica, ReplicaState

_EVENTS_KEPT = 100


@dataclass(slots=True)
class _Row:
    """One replica: where it is to run, and what its node last said."""

    replica: Replica
    incarnation: str
    node: str = ""
    memory_private: int = 0
    restarts: int = 0
    """On nodes where it ran before."""


@dataclass(slots=True)
class _Model:
    spec: ModelSpec
    rows: dict[str, _Row]
    events: deque[ModelEvent]
    refusals: dict[str, ErrorInfo]
    draining: bool = False

    def status(self) -> ModelStatus:
        return ModelStatus(
            spec=self.spec, replicas=tuple(row.replica for row in self.rows.values()), events=tuple(self.events)
        )


@dataclass(slots=True)
class _Node:
    report: NodeReport
    wants: tuple[ReplicaWant, ...] = ()
    generation: int = 0
    acked: int = -1
    in_flight: bool = False
    behind: bool = False
    last_event: int = 0


class ControlState:
    """The controller's table. `epoch` names this life of the controller."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self._models: dict[str, _Model] = {}
        self._nodes: dict[str, _Node] = {}
        self._published: dict[str, ModelStatus] = {}
        self._incarnations = 0
        self._generations = 0

    def statuses(self) -> tuple[ModelStatus, ...]:
        """The table as watchers see it."""
        return tuple(self._published.values())

    def status(self, uid: str) -> ModelStatus | None:
        return self._published.get(uid)

    def nodes(self) -> tuple[str, ...]:
        """The addresses of the nodes whose agents reported."""
        return tuple(self._nodes)

    def draining(self, uid: str) -> bool:
        """Whether the model was terminated and its last replicas are still leaving."""
        model = self._models.get(uid)
        return model is not None and model.draining

    def busy_nodes(self) -> frozenset[str]:
        """The addresses of the nodes that run or will run replicas."""
        return frozenset(row.node for model in self._models.values() for row in model.rows.values() if row.node)

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
                for spec in specs:
                    if spec.uid not in self._models:
                        self._add(spec, {}, now, "wanted since before the controller started")
            case LaunchAsked(spec, refusals):
                self._launch(spec, refusals, now)
                instructions.append(self._persist())
            case TerminateAsked(uid):
                self._terminate(uid, now)
                instructions.append(self._persist())
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
            case Ticked():
                pass
        self._place_unplaced(now)
        self._forget_drained()
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
        rows: dict[str, _Row] = {}
        for index in range(spec.replica):
            self._incarnations += 1
            replica = Replica(id=f"{spec.uid}-{index}", uid=spec.uid, message="waiting for a node")
            rows[replica.id] = _Row(replica, incarnation=f"{self.epoch}.{self._incarnations}")
        events = deque([ModelEvent(type="INFO", time=now, content=why)], maxlen=_EVENTS_KEPT)
        self._models[spec.uid] = _Model(spec, rows, events, dict(refusals))

    def _terminate(self, uid: str, now: float) -> None:
        model = self._models.get(uid)
        if model is None or model.draining:
            raise ModelNotFound(f"there is no model {uid!r} to terminate")
        model.draining = True
        model.events.append(ModelEvent(type="INFO", time=now, content="terminating"))
        for row in model.rows.values():
            row.replica = replace(row.replica, state=ReplicaState.DRAINING, message="terminating")

    def _report(self, address: str, report: NodeReport, now: float) -> None:
        node = self._nodes.get(address)
        if node is None or node.report.boot != report.boot:
            node = self._nodes[address] = _Node(report, generation=self._next_generation())
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

    def _update(self, model: _Model, row: _Row, reported: ReplicaReport, now: float) -> None:
        row.memory_private = reported.memory_private
        row.replica = replace(reported.replica, restarts=row.restarts + reported.replica.restarts)
        if model.draining:
            row.replica = replace(row.replica, state=ReplicaState.DRAINING)
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
                model.events.append(ModelEvent(type="WARNING", time=now, content=f"{row.replica.id}: moving"))

    def _node_left(self, address: str, now: float) -> None:
        node = self._nodes.pop(address, None)
        for model in self._models.values():
            model.refusals.pop(address, None)
            for row in model.rows.values():
                if row.node == address:
                    label = node.report.inventory.label if node else address
                    content = f"replica {row.replica.id}: node {label} left the cluster"
                    model.events.append(ModelEvent(type="WARNING", time=now, content=content))
                    self._unassign(row, content)

    # ---- reconcile

    def _place_unplaced(self, now: float) -> None:
        for model in self._models.values():
            if model.draining:
                continue
            for row in model.rows.values():
                if row.node:
                    continue
                placement = place(model.spec, self._views(model.spec, model.refusals), 1)
                if isinstance(placement, NoFit):
                    row.replica = replace(row.replica, message=placement.message)
                else:
                    self._assign(row, placement.addresses[0])

    def _assign(self, row: _Row, address: str) -> None:
        row.node = address
        row.replica = replace(
            row.replica,
            node=self._nodes[address].report.inventory.label,
            state=ReplicaState.PLACING,
            message="starting",
            error=None,
        )

    def _unassign(self, row: _Row, why: str) -> None:
        self._incarnations += 1
        if row.replica.pid:
            row.restarts = row.replica.restarts + 1
        row.node = ""
        row.memory_private = 0
        row.incarnation = f"{self.epoch}.{self._incarnations}"
        row.replica = Replica(
            id=row.replica.id, uid=row.replica.uid, message=f"{why}; waiting for a node", restarts=row.restarts
        )

    def _forget_drained(self) -> None:
        """Drop the replicas that no node runs any more of terminated models, and then these models."""
        for uid, model in list(self._models.items()):
            if not model.draining:
                continue
            for replica_id, row in list(model.rows.items()):
                node = self._nodes.get(row.node)
                if node is None or self._left(node, row):
                    del model.rows[replica_id]
            if not model.rows:
                del self._models[uid]

    def _left(self, node: _Node, row: _Row) -> bool:
        """Whether the node knows that the replica is unwanted, and runs it no more."""
        wanted = any(want.incarnation == row.incarnation for want in node.wants)
        running = any(replica.incarnation == row.incarnation for replica in node.report.replicas)
        return not wanted and not running and node.acked == node.generation

    def _syncs(self, *, repeat: bool) -> Iterable[SendSync]:
        wants: dict[str, list[ReplicaWant]] = {address: [] for address in self._nodes}
        for model in self._models.values():
            if not model.draining:
                for row in model.rows.values():
                    if row.node:
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
            refusal = refusals[address].message if address in refusals else ""
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
