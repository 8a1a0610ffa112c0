"""What happens to the controller's table (events), and what the controller does about it (instructions)."""

from dataclasses import dataclass, field

from xinfer_runtime.cluster.protocol import DemandReport, NodeReport, Sync
from xinfer_runtime.errors import ErrorInfo
from xinfer_runtime.models import ModelSpec, ModelStatus


@dataclass(frozen=True, slots=True)
class Restored:
    """The desired table of an earlier life was read. `nodes` are those of `Persist`, None where they are not known."""

    specs: tuple[ModelSpec, ...]
    nodes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class LaunchAsked:
    """Somebody wants `spec`; `refusals` are the nodes (addresses) that cannot run it, and why.

    With `replace` it takes the place of the model of its name, if there is one, replica by replica.
    """

    spec: ModelSpec
    refusals: dict[str, ErrorInfo] = field(default_factory=dict)
    replace: bool = False


@dataclass(frozen=True, slots=True)
class TerminateAsked:
    uid: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Somebody does not want to wait for the model any more; refused once it is ready."""

    uid: str


@dataclass(frozen=True, slots=True)
class ScaleAsked:
    """The model is to have `count` replicas."""

    uid: str
    count: int


@dataclass(frozen=True, slots=True)
class RemovalAsked:
    """This very replica is to go, and the model to have one less."""

    uid: str
    replica_id: str


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """The node is to become empty and stay so, or to be used again where `drain` is False."""

    address: str
    drain: bool = True


@dataclass(frozen=True, slots=True)
class WakeAsked:
    """Somebody needs the model, which may be asleep."""

    uid: str


@dataclass(frozen=True, slots=True)
class DemandSeen:
    """A gateway said what is used there."""

    report: DemandReport


@dataclass(frozen=True, slots=True)
class Reported:
    address: str
    report: NodeReport


@dataclass(frozen=True, slots=True)
class SyncFailed:
    """The node could not be told; the next tick tries again."""

    address: str


@dataclass(frozen=True, slots=True)
class HeartbeatSeen:
    """A node's heartbeat says that its report `seq` of life `boot` exists."""

    address: str
    boot: str
    seq: int


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """The node's Dask worker is gone; its replicas may have outlasted it, if the node said that they can."""

    address: str


@dataclass(frozen=True, slots=True)
class ReplicasGone:
    """What outlasted a node's Dask worker is gone too, or was not reported by a next one in time."""

    address: str


@dataclass(frozen=True, slots=True)
class Ticked:
    """A second went by."""


Event = (
    Restored
    | LaunchAsked
    | TerminateAsked
    | CancelAsked
    | ScaleAsked
    | RemovalAsked
    | DrainAsked
    | WakeAsked
    | DemandSeen
    | Reported
    | SyncFailed
    | HeartbeatSeen
    | NodeLeft
    | ReplicasGone
    | Ticked
)


@dataclass(frozen=True, slots=True)
class SendSync:
    address: str
    sync: Sync


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell every watcher; `status` None means that the model is gone."""

    uid: str
    status: ModelStatus | None


@dataclass(frozen=True, slots=True)
class Persist:
    """Write the desired table, and the labels of the nodes whose replicas outlast the controller."""

    specs: tuple[ModelSpec, ...]
    nodes: tuple[str, ...] = ()


Instruction = SendSync | Publish | Persist
