"""The rows of the controller's table: models, their replicas, and nodes."""

from collections import deque
from dataclasses import dataclass, field

from msgspec.structs import replace

from xinfer_runtime.cluster.demand import ModelDemand
from xinfer_runtime.cluster.protocol import NodeReport, ReplicaWant
from xinfer_runtime.errors import ErrorInfo, from_info
from xinfer_runtime.models import ModelEvent, ModelSpec, ModelStatus, Replica, ReplicaState, ReplicaWish

_REMOVED_FIRST = (
    ReplicaState.DRAINING,
    ReplicaState.SLEEPING,
    ReplicaState.FAILED,
    ReplicaState.PLACING,
    ReplicaState.DOWNLOADING,
    ReplicaState.LOADING,
    ReplicaState.READY,
)


@dataclass(slots=True)
class ReplicaRow:
    """One replica: where it is to run, and what its node last said.

    `want` is what its node is told, None while it has no node. A `leaving` one is not wanted any more and finishes its
    streams. One with a `successor`, the id of another row, leaves as soon as that one is ready.
    """

    replica: Replica
    incarnation: str
    wish: ReplicaWish
    node: str = ""
    want: ReplicaWant | None = None
    memory_private: int = 0
    settled: bool = False
    """Whether it holds the memory of its GPUs, so that what is free there is without it."""
    restarts: int = 0
    """On nodes where it ran before."""
    leaving: bool = False
    successor: str = ""

    @property
    def devices(self) -> tuple[str, ...]:
        return self.want.devices if self.want is not None else ()

    @property
    def launched(self) -> float:
        """The time of the launch that its process belongs to."""
        return self.want.spec.created if self.want is not None else 0.0

    @property
    def over(self) -> bool:
        """Whether nothing will run here any more, though it is wanted: what is wrong with it is no accident."""
        replica = self.replica
        return replica.state is ReplicaState.FAILED and (
            replica.error is None or from_info(replica.error).status == 400
        )

    def heard(self, replica: Replica, memory_private: int) -> None:
        """What the node says of it."""
        self.memory_private = memory_private
        if replica.state is not ReplicaState.DRAINING:
            self.settled = replica.state is ReplicaState.READY
        self.replica = replace(replica, restarts=self.restarts + replica.restarts, devices=self.devices)

    def leave(self, why: str, error: ErrorInfo | None = None) -> None:
        self.leaving = True
        self.replica = leaving(self.replica, why, error)


@dataclass(slots=True)
class ModelRow:
    spec: ModelSpec
    rows: dict[str, ReplicaRow]
    """By replica id."""
    events: deque[ModelEvent]
    refusals: dict[str, ErrorInfo]
    demand: ModelDemand
    draining: bool = False

    def status(self) -> ModelStatus:
        return ModelStatus(
            spec=self.spec, replicas=tuple(row.replica for row in self.rows.values()), events=tuple(self.events)
        )

    def staying(self) -> list[ReplicaRow]:
        """The rows that count: a replica that moves counts once, by its new place."""
        return [row for row in self.rows.values() if not row.leaving and not row.successor]

    def ready(self) -> bool:
        """Whether all of its replicas are."""
        return all(row.replica.state is ReplicaState.READY for row in self.staying())

    def superfluous(self, count: int) -> list[str]:
        """The ids of the `count` replicas that are missed least: those without a process, then the newest."""
        rows = enumerate(self.staying())
        ranked = sorted(rows, key=lambda row: (_REMOVED_FIRST.index(row[1].replica.state), -row[0]))
        return [row.replica.id for _, row in ranked[:count]]

    def unplaced(self) -> list[ReplicaRow]:
        return [] if self.draining else [row for row in self.rows.values() if not row.node and not row.leaving]

    def free_number(self) -> int:
        """The lowest number that no replica has: an id is `<uid>-<number>`."""
        return next(i for i in range(len(self.rows) + 1) if f"{self.spec.uid}-{i}" not in self.rows)

    def tell(self, kind: str, now: float, content: str) -> None:
        self.events.append(ModelEvent(type=kind, time=now, content=content))


@dataclass(slots=True)
class NodeRow:
    """A node whose agent reported. A `draining` one gets no replica, and its replicas move away."""

    report: NodeReport
    rows: dict[str, ReplicaRow] = field(default_factory=dict)
    """What it runs or will run, leaving ones included, by incarnation."""
    moved: dict[str, ReplicaRow] = field(default_factory=dict)
    """Earlier incarnations of replicas that are elsewhere by now, whose processes may still be here."""
    wants: tuple[ReplicaWant, ...] = ()
    generation: int = 0
    acked: int = -1
    in_flight: bool = False
    behind: bool = False
    last_event: int = 0
    draining: bool = False

    @property
    def label(self) -> str:
        return self.report.inventory.label

    def runs(self, incarnation: str) -> bool:
        """Whether the node may still run that replica, as far as it is known."""
        wanted = any(want.incarnation == incarnation for want in self.wants)
        running = any(replica.incarnation == incarnation for replica in self.report.replicas)
        return wanted or running or self.acked != self.generation


def leaving(replica: Replica, why: str, error: ErrorInfo | None = None) -> Replica:
    return replace(replica, state=ReplicaState.DRAINING, message=why, error=error)
