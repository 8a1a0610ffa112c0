"""Values that the state machines' tests share."""

from hypothesis import settings

from xinfer_runtime.cluster.protocol import AgentEvent, Inventory, NodeReport, ReplicaReport
from xinfer_runtime.models import ModelInfo, ModelSpec

# A busy machine is no failure of what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

GIB = 1 << 30
INFO = ModelInfo(context_length=1000, vocab_size=10, abilities=("chat",))


def spec(uid: str = "m", replica: int = 1, memory: int = GIB, **fields: object) -> ModelSpec:
    return ModelSpec(uid=uid, name=uid, replica=replica, memory_bytes=memory, **fields)  # type: ignore[arg-type]


def report(
    seq: int = 1,
    *replicas: ReplicaReport,
    boot: str = "boot",
    host: str = "host",
    epoch: str = "",
    generation: int = -1,
    memory: int = 16 * GIB,
    events: tuple[AgentEvent, ...] = (),
    outlasts: bool = False,
) -> NodeReport:
    inventory = Inventory(host=host, label=host, cpus=2, memory_total=memory, memory_available=memory)
    return NodeReport(
        boot=boot,
        seq=seq,
        epoch=epoch,
        generation=generation,
        inventory=inventory,
        replicas=replicas,
        events=events,
        outlasts=outlasts,
    )
