"""The rows of the controller's table: models, their replicas, and nodes."""

from collections import deque
from dataclasses import dataclass

from msgspec.structs import replace

from xinfer_runtime.cluster.protocol import NodeReport, ReplicaWant
from xinfer_runtime.errors import ErrorInfo
from xinfer_runtime.messages import ModelEvent, ModelSpec, ModelStatus, Replica, ReplicaState

_REMOVED_FIRST = (
    ReplicaState.DRAINING,
    ReplicaState.FAILED,
    ReplicaState.PLACING,
    ReplicaState.DOWNLOADING,
    ReplicaState.LOADING,
    ReplicaState.READY,
)


@dataclass(slots=True)
class ReplicaRow:
    """One replica: where it is to run, and what its node last said.

    A `leaving` one is not wanted any more and finishes its streams. One with a `successor`, the id of another row,
    leaves as soon as that one is ready.
    """

    replica: Replica
    incarnation: str
    node: str = ""
    memory_private: int = 0
    restarts: int = 0
    """On nodes where it ran before."""
    leaving: bool = False
    successor: str = ""

    def leave(self, why: str, error: ErrorInfo | None = None) -> None:
        self.leaving = True
        self.replica = leaving(self.replica, why, error)


@dataclass(slots=True)
class ModelRow:
    spec: ModelSpec
    rows: dict[str, ReplicaRow]
    events: deque[ModelEvent]
    refusals: dict[str, ErrorInfo]
    draining: bool = False

    def status(self) -> ModelStatus:
        return ModelStatus(
            spec=self.spec, replicas=tuple(row.replica for row in self.rows.values()), events=tuple(self.events)
        )

    def staying(self) -> list[ReplicaRow]:
        """The rows that count: a replica that moves counts once, by its new place."""
        return [row for row in self.rows.values() if not row.leaving and not row.successor]

    def superfluous(self, count: int) -> list[str]:
        """The ids of the `count` replicas that are missed least: those without a process, then the newest."""
        rows = enumerate(self.staying())
        ranked = sorted(rows, key=lambda row: (_REMOVED_FIRST.index(row[1].replica.state), -row[0]))
        return [row.replica.id for _, row in ranked[:count]]

    def free_id(self) -> str:
        index = next(i for i in range(len(self.rows) + 1) if f"{self.spec.uid}-{i}" not in self.rows)
        return f"{self.spec.uid}-{index}"

    def tell(self, kind: str, now: float, content: str) -> None:
        self.events.append(ModelEvent(type=kind, time=now, content=content))


@dataclass(slots=True)
class NodeRow:
    """A node whose agent reported. A `draining` one gets no replica, and its replicas move away."""

    report: NodeReport
    wants: tuple[ReplicaWant, ...] = ()
    generation: int = 0
    acked: int = -1
    in_flight: bool = False
    behind: bool = False
    last_event: int = 0
    draining: bool = False

    def runs(self, row: ReplicaRow) -> bool:
        """Whether the node may still run the replica, as far as it is known."""
        wanted = any(want.incarnation == row.incarnation for want in self.wants)
        running = any(replica.incarnation == row.incarnation for replica in self.report.replicas)
        return wanted or running or self.acked != self.generation


def leaving(replica: Replica, why: str, error: ErrorInfo | None = None) -> Replica:
    return replace(replica, state=ReplicaState.DRAINING, message=why, error=error)
