from typing import Any

import pytest

from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.models import LaunchRequest, ReplicaConfigItem, ReplicaDevice, ReplicaWish


def wishes(**fields: Any) -> list[ReplicaWish]:
    spec = resolve(LaunchRequest(model_name="xinfer-demo", **fields))
    return [spec.wish(number) for number in range(spec.replica)]


def config(*devices: ReplicaDevice) -> tuple[ReplicaConfigItem, ...]:
    return tuple(ReplicaConfigItem(devices=(device,)) for device in devices)


def test_replicas_are_alike_unless_the_launch_says_otherwise() -> None:
    assert wishes(replica=2, n_gpu=1, worker_ip="10.0.0.7") == [ReplicaWish(n_gpu=1, worker_ip="10.0.0.7")] * 2
    assert wishes() == [ReplicaWish()]
    assert wishes(n_gpu=None) == [ReplicaWish(n_gpu=0)]


def test_the_gpus_that_are_named_are_shared_out() -> None:
    assert wishes(replica=2, gpu_idx=(0, 1, 2, 3), worker_ip="box") == [
        ReplicaWish(n_gpu=2, gpu_idx=(0, 1), worker_ip="box"),
        ReplicaWish(n_gpu=2, gpu_idx=(2, 3), worker_ip="box"),
    ]
    assert wishes(gpu_idx=3) == [ReplicaWish(n_gpu=1, gpu_idx=(3,))]


def test_replicas_may_differ() -> None:
    devices = ReplicaDevice(worker_ip="a", n_gpu=2), ReplicaDevice(n_gpu=None), ReplicaDevice(gpu_idx=1)
    assert wishes(replica_config=config(*devices)) == [
        ReplicaWish(n_gpu=2, worker_ip="a"),
        ReplicaWish(n_gpu=0),
        ReplicaWish(n_gpu=1, gpu_idx=(1,)),
    ]


ONE = config(ReplicaDevice())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"gpu_idx": (0, 1, 2), "replica": 2}, "gpu_idx"),
        ({"gpu_idx": (0, 0)}, "gpu_idx"),
        ({"gpu_idx": -1}, "gpu_idx"),
        ({"gpu_idx": (0, 1), "n_gpu": 1}, "gpu_idx"),
        ({"n_gpu": "many"}, "n_gpu"),
        ({"n_gpu": 65}, "n_gpu"),
        ({"worker_ip": "x" * 201}, "worker_ip"),
        ({"replica_config": ONE, "gpu_idx": 0}, "gpu_idx"),
        ({"replica_config": ONE, "worker_ip": "a"}, "worker_ip"),
        ({"replica_config": ONE, "n_gpu": 1}, "n_gpu"),
        ({"replica_config": ONE, "replica": 2}, "replica"),
        ({"replica_config": (ReplicaConfigItem(devices=()),)}, "replica_config"),
        ({"replica_config": (ReplicaConfigItem(devices=(ReplicaDevice(),), replica_uid="x"),)}, "replica_config"),
        ({"replica_config": config(ReplicaDevice(gpu_idx=(0, 1), n_gpu=1))}, "replica_config"),
        ({"labels": {str(number): "x" for number in range(21)}}, "labels"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        wishes(**fields)
    assert caught.value.param == param
