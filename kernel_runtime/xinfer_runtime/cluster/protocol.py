"""The messages between gateway, controller and node agent: msgpack bytes inside Dask RPCs.

Dask would unpickle what it does not know; bytes of our own typed messages it only passes on.
"""

from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from xinfer_runtime.errors import ErrorInfo
from xinfer_runtime.models import EngineStats, ModelEvent, ModelSpec, ModelStatus, Replica

METRIC: Final = "xinfer"
"""The name of the agent's entry in the metrics of Dask's heartbeats: `{"boot", "seq"}` of its newest report."""


class ReplicaWant(Struct, frozen=True, kw_only=True):
    """A replica that a node is to run. A new `incarnation` under the same id replaces the process that is there.

    `devices` are the UUIDs of the GPUs that it may use, and no others.
    """

    id: str
    incarnation: str
    spec: ModelSpec
    devices: tuple[str, ...] = ()


class Sync(Struct, frozen=True, kw_only=True):
    """Controller to agent: all that the node is to run, no more and no less.

    `generation` grows with each change of this node's wants within `epoch`, one life of the controller.
    """

    epoch: str
    generation: int
    wants: tuple[ReplicaWant, ...] = ()


class Gpu(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A GPU, or an instance of one that is divided (MIG); memory in bytes, `utilisation` from 0 to 1.

    `index` is its position among all that the driver lists, `uuid` what makes it visible to a process.
    """

    uuid: str
    index: int
    name: str
    memory_total: int
    memory_free: int
    utilisation: float = 0.0
    vendor: str = "nvidia"
    parent: str = ""
    """Of a MIG instance: the UUID of the GPU."""


class EngineSupport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An engine that a node can import, and whether it was built for GPUs."""

    version: str
    gpu: bool = False


class Inventory(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node as measured just now; sizes in bytes. `host` tells nodes that share one memory, and `address` is where
    others reach it. `engines` None means that nobody looked.
    """

    host: str
    label: str
    cpus: int
    memory_total: int
    memory_available: int
    address: str = ""
    disk_total: int = 0
    disk_free: int = 0
    gpus: tuple[Gpu, ...] = ()
    engines: dict[str, EngineSupport] | None = None
    labels: dict[str, str] = {}


class ReplicaReport(Struct, frozen=True, kw_only=True):
    """A replica as its agent sees it. `memory_private`, in bytes, is what the kernel cannot drop of its memory.

    `launched` is the time of the launch that it belongs to (`ModelSpec.created`).
    """

    incarnation: str
    replica: Replica
    memory_private: int = 0
    launched: float = 0.0


class AgentEvent(Struct, frozen=True, kw_only=True):
    """Something that happened on a node; `number` grows by one each, so that a repeated report repeats nothing."""

    number: int
    uid: str
    event: ModelEvent


class NodeReport(Struct, frozen=True, kw_only=True):
    """Agent to controller: everything the node runs, after applying `generation` of `epoch`.

    `seq` orders the reports of one life of the agent, `boot`: they travel on several connections. `outlasts` says that
    the replicas go on when the node's Dask worker ends, and will be reported by its next one.
    """

    boot: str
    seq: int
    epoch: str = ""
    generation: int = -1
    inventory: Inventory
    replicas: tuple[ReplicaReport, ...] = ()
    events: tuple[AgentEvent, ...] = ()
    outlasts: bool = False


class Inspection(Struct, frozen=True, kw_only=True):
    """Agent to controller: the spec with what the node's file says, or why the node cannot run it."""

    report: NodeReport
    spec: ModelSpec | None = None
    error: ErrorInfo | None = None


class NodeStatus(Struct, frozen=True, kw_only=True):
    """A node as the controller knows it; `replicas` are the ids of those that it runs or will run."""

    address: str
    inventory: Inventory
    draining: bool = False
    replicas: tuple[str, ...] = ()


class NodeList(Struct, frozen=True, kw_only=True):
    """All nodes of the cluster."""

    nodes: tuple[NodeStatus, ...]


class Demand(Struct, frozen=True, kw_only=True):
    """Gateway to controller: the use of a model there now.

    `requests` are in flight, and `waited` is the longest in seconds that one of them waits for its first token, or that
    one did which got it since the report before.
    """

    uid: str
    requests: int
    waited: float = 0.0


class DemandReport(Struct, frozen=True, kw_only=True):
    """The use of all models at one gateway for which somebody wants to know; `gateway` tells gateways apart."""

    gateway: str
    demands: tuple[Demand, ...] = ()


class LoadReport(Struct, frozen=True, kw_only=True):
    """Gateway to controller, for the page in the Dask dashboard: what replicas, by id, last said of their load, and how
    many requests for each model wait in this gateway."""

    gateway: str
    replicas: dict[str, EngineStats] = {}
    queued: dict[str, int] = {}


class Answer(Struct, frozen=True, kw_only=True):
    """Controller to gateway: the table's revision after the change, and the model; or an error."""

    revision: int = 0
    status: ModelStatus | None = None
    error: ErrorInfo | None = None
    message: str = ""
    """For a person: what the action came to."""
    nodes: NodeList | None = None
    """Where they were asked for."""


class Snapshot(Struct, frozen=True, kw_only=True, tag="snapshot"):
    """The first message of a watch: the whole table."""

    epoch: str
    revision: int
    models: tuple[ModelStatus, ...]
    dashboard: str | None = None
    """URL of Dask's dashboard, which asks nobody who they are; None where the scheduler has none."""


class Change(Struct, frozen=True, kw_only=True, tag="change"):
    """One model of the table changed; `status` is None when it is gone."""

    revision: int
    uid: str
    status: ModelStatus | None


class Beat(Struct, frozen=True, kw_only=True, tag="beat"):
    """Nothing changed, but the controller lives."""

    revision: int


WatchMessage = Snapshot | Change | Beat

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


def encode(message: Struct) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    """Raises msgspec.ValidationError or msgspec.DecodeError for anything else than a `kind`."""
    return msgspec.msgpack.decode(data, type=kind)


_watch_decoder: msgspec.msgpack.Decoder[WatchMessage] = msgspec.msgpack.Decoder(WatchMessage)


def decode_watch(data: bytes) -> WatchMessage:
    return _watch_decoder.decode(data)
