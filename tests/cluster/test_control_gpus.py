"""GPUs in the controller's table: given by UUID, told to nodes, and free again when their process is gone."""

from typing import Any

import pytest
from msgspec.structs import replace
from tests.cluster.conftest import GIB, INFO, report, spec

from xinfer_runtime.cluster import control_events as control
from xinfer_runtime.cluster.control_events import SendSync
from xinfer_runtime.cluster.control_state import ControlState
from xinfer_runtime.cluster.protocol import Gpu, NodeReport, ReplicaReport, Sync
from xinfer_runtime.errors import DoesNotFit, EngineError, ErrorInfo
from xinfer_runtime.models import ModelSpec, Replica, ReplicaState, ReplicaWish

FREE = 79 * GIB


class Box:
    """A controller with nodes that have two GPUs each, whose memory is what the test says."""

    def __init__(self, *nodes: str) -> None:
        self.state = ControlState("epoch")
        self.seq = 0
        self.syncs: dict[str, Sync] = {}
        self.free: dict[str, int] = {}
        for node in nodes:
            self.report(node)

    def handle(self, event: control.Event) -> None:
        for instruction in self.state.handle(event, 0.0):
            if isinstance(instruction, SendSync):
                self.syncs[instruction.address] = instruction.sync

    def launch(self, uid: str = "m", memory: int = 10 * GIB, n_gpu: int | None = 1, **fields: Any) -> None:
        self.handle(control.LaunchAsked(spec(uid, memory=memory, n_gpu=n_gpu, **fields)))

    def report(self, node: str, *replicas: ReplicaReport) -> None:
        self.seq += 1
        sync = self.syncs.get(node, Sync(epoch="", generation=-1))
        base: NodeReport = report(self.seq, *replicas, host=node, boot=node, epoch=sync.epoch)
        gpus = tuple(
            Gpu(uuid=uuid, index=i, name="H200", memory_total=80 * GIB, memory_free=self.free.get(uuid, FREE))
            for i, uuid in enumerate((f"GPU-{node}0", f"GPU-{node}1"))
        )
        inventory = replace(base.inventory, gpus=gpus)
        self.handle(control.Reported(node, replace(base, inventory=inventory, generation=sync.generation)))

    def replicas(self, node: str, state: ReplicaState, error: ErrorInfo | None = None) -> list[ReplicaReport]:
        return [
            ReplicaReport(
                incarnation=want.incarnation,
                replica=Replica(id=want.id, uid=want.spec.uid, node=node, state=state, pid=7, info=INFO, error=error),
            )
            for want in self.syncs[node].wants
        ]

    def devices(self, uid: str = "m") -> list[tuple[str, ...]]:
        status = self.state.status(uid)
        assert status is not None
        return [replica.devices for replica in status.replicas]


def test_each_replica_gets_a_gpu_and_its_node_is_told_which() -> None:
    box = Box("a")
    box.launch(replica=2)
    assert sorted(box.devices()) == [("GPU-a0",), ("GPU-a1",)]
    assert [want.devices for want in box.syncs["a"].wants] == box.devices()
    assert {want.spec.n_gpu for want in box.syncs["a"].wants} == {1}
    box.report("a", *box.replicas("a", ReplicaState.READY))
    assert sorted(box.devices()) == [("GPU-a0",), ("GPU-a1",)]


def test_a_replica_on_processors_of_a_node_with_gpus_is_told_to_use_none() -> None:
    box = Box("a")
    box.launch(n_gpu=0)
    (want,) = box.syncs["a"].wants
    assert (want.devices, want.spec.n_gpu) == ((), 0)


def test_one_replica_gets_both_gpus() -> None:
    box = Box("a")
    box.launch(memory=100 * GIB, n_gpu=2)
    assert sorted(box.devices()[0]) == ["GPU-a0", "GPU-a1"]


def test_what_is_promised_of_a_gpu_is_promised_once() -> None:
    box = Box("a")
    for number in range(2):
        box.launch(f"big{number}", memory=60 * GIB)
    with pytest.raises(DoesNotFit, match=r"GPU 0 .*18\.4 GiB free of 80\.0 GiB, 60\.6 GiB promised"):
        box.launch("third", memory=60 * GIB)


def test_a_ready_replica_is_in_what_its_gpu_has_free_and_not_promised_again() -> None:
    box = Box("a")
    box.launch("first", memory=40 * GIB)
    (gpu,) = box.devices("first")[0]
    box.free[gpu] = FREE - 40 * GIB
    box.report("a", *box.replicas("a", ReplicaState.LOADING))
    with pytest.raises(DoesNotFit):
        box.launch("second", memory=30 * GIB, wishes=(ReplicaWish(n_gpu=1, gpu_idx=(int(gpu[-1]),)),))
    box.report("a", *box.replicas("a", ReplicaState.READY))
    box.launch("second", memory=30 * GIB, wishes=(ReplicaWish(n_gpu=1, gpu_idx=(int(gpu[-1]),)),))
    assert box.devices("second") == [(gpu,)]


def test_a_gpu_is_free_again_when_the_process_is_gone_and_not_before() -> None:
    box = Box("a")
    box.launch("first", memory=60 * GIB, replica=2)
    loading = box.replicas("a", ReplicaState.LOADING)
    box.report("a", *loading)
    box.handle(control.TerminateAsked("first"))
    with pytest.raises(DoesNotFit):
        box.launch("second", memory=60 * GIB)
    draining = [replace(each, replica=replace(each.replica, state=ReplicaState.DRAINING)) for each in loading]
    box.report("a", *draining)
    with pytest.raises(DoesNotFit):
        box.launch("second", memory=60 * GIB)
    box.report("a")
    box.launch("second", memory=60 * GIB)
    assert len(box.devices("second")[0]) == 1


def test_a_gpu_stays_taken_while_a_replica_that_moved_away_still_ends() -> None:
    box = Box("a")
    box.launch("first", memory=60 * GIB, replica=2)
    box.report("a", *box.replicas("a", ReplicaState.LOADING))
    ending = box.replicas("a", ReplicaState.DRAINING)
    box.report("b")
    box.handle(control.DrainAsked("a"))
    assert sorted(uuid for devices in box.devices("first") for uuid in devices) == ["GPU-b0", "GPU-b1"]
    box.handle(control.DrainAsked("a", drain=False))
    box.report("a", *ending)
    with pytest.raises(DoesNotFit):
        box.launch("second", memory=60 * GIB)
    box.report("a")
    box.launch("second", memory=60 * GIB)


def test_a_replica_that_crashed_keeps_its_gpu_for_its_next_life() -> None:
    box = Box("a")
    box.launch("first", memory=60 * GIB, replica=2)
    error = EngineError("out of memory").info
    box.report("a", *box.replicas("a", ReplicaState.FAILED, error))
    with pytest.raises(DoesNotFit):
        box.launch("second", memory=60 * GIB)
    bad = ErrorInfo(code="invalid_request", message="no such option")
    box.report("a", *box.replicas("a", ReplicaState.FAILED, bad))
    box.launch("second", memory=60 * GIB)


def test_a_pinned_model_stays_on_a_node_that_is_drained() -> None:
    box = Box("a", "b")
    box.launch(pinned=True, worker_ip="a")
    box.report("a", *box.replicas("a", ReplicaState.READY))
    box.handle(control.DrainAsked("a"))
    assert box.state.replicas_on("a") == ("m-0",)
    assert box.state.stuck_on("a") == ("m-0 stays: its model is pinned",)


def test_replicas_that_differ_get_what_each_asks_for() -> None:
    box = Box("a", "b")
    wishes = (ReplicaWish(n_gpu=2), ReplicaWish(n_gpu=0, worker_ip="b"))
    box.launch(replica=2, wishes=wishes)
    assert [len(devices) for devices in box.devices()] == [2, 0]
    assert [want.id for want in box.syncs["b"].wants] in (["m-1"], ["m-0", "m-1"])


def test_a_restored_model_gets_gpus_when_its_node_joins() -> None:
    box = Box()
    stored: ModelSpec = spec(replica=2, memory=60 * GIB, n_gpu=1)
    box.handle(control.Restored((stored,)))
    box.report("a")
    assert sorted(box.devices()) == [("GPU-a0",), ("GPU-a1",)]
