from xinfer_runtime.cluster.models_table import model_columns, replica_columns
from xinfer_runtime.cluster.observed_load import FORGET_SECONDS, WATCHED_SECONDS, ObservedLoad
from xinfer_runtime.cluster.protocol import LoadReport
from xinfer_runtime.errors import ErrorInfo
from xinfer_runtime.models import EngineStats, ModelSpec, ModelStatus, Replica, ReplicaState

BUSY = EngineStats(running=3, waiting=1, kv_used=30, kv_total=120, tokens_per_second=90.0, prompt_tokens=10)
STATUS = ModelStatus(
    spec=ModelSpec(uid="m", name="m"),
    replicas=(
        Replica(id="m-0", uid="m", node="one", state=ReplicaState.READY, devices=("GPU-1",)),
        Replica(id="m-1", uid="m", state=ReplicaState.FAILED, restarts=2, error=ErrorInfo("engine_error", "broken")),
    ),
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_models_and_replicas_have_what_gateways_said_of_them() -> None:
    load = ObservedLoad(Clock())
    load.note(LoadReport(gateway="a", replicas={"m-0": BUSY}, queued={"m": 4}))
    load.note(LoadReport(gateway="b", replicas={"m-0": BUSY}, queued={"m": 2}))
    models, replicas = model_columns([STATUS], load), replica_columns([STATUS], load)
    assert {name: column[0] for name, column in models.items()} == {
        "model": "m",
        "state": "ready",
        "ready": "1 of 2",
        "running": 3,
        "waiting": 1,
        "queued": 6,
        "tokens_per_second": 90.0,
        "prefix_hits": 0.0,
    }
    assert replicas["kv"] == [0.25, 0.0]
    assert replicas["devices"] == ["GPU-1", "CPU"]
    assert replicas["message"] == ["", "broken"]
    assert len({len(column) for column in replicas.values()}) == 1


def test_what_nobody_repeats_is_forgotten() -> None:
    clock = Clock()
    load = ObservedLoad(clock)
    load.note(LoadReport(gateway="a", replicas={"m-0": BUSY}, queued={"m": 4}))
    clock.now += FORGET_SECONDS
    assert load.of("m-0") is None
    assert load.queued("m") == 0
    load.note(LoadReport(gateway="b"))
    assert not load._replicas
    assert load._queued.keys() == {"b"}


def test_gateways_hear_whether_somebody_looks() -> None:
    clock = Clock()
    load = ObservedLoad(clock)
    assert not load.watched
    load.look()
    assert load.watched
    clock.now += WATCHED_SECONDS
    assert not load.watched
