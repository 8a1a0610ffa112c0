"""Where the replicas of a launch are to run, from Xinference's fields: `n_gpu`, `gpu_idx`, `worker_ip`,
`replica_config`.
"""

from collections.abc import Sequence

from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.models import LaunchRequest, ReplicaConfigItem, ReplicaWish

MAX_GPUS = 64
MAX_NAME = 200


def wishes_of(request: LaunchRequest) -> tuple[ReplicaWish, ...]:
    """One wish per replica where the request names GPUs or lists its replicas, else none: all are alike.

    Raises InvalidRequest naming the field.
    """
    if request.replica_config:
        for name in ("gpu_idx", "worker_ip"):
            if getattr(request, name) is not None:
                raise InvalidRequest(f"replica_config says where replicas run: leave out {name}", param=name)
        if request.n_gpu != "auto":
            raise InvalidRequest("replica_config says how many GPUs replicas get: leave out n_gpu", param="n_gpu")
        if request.replica not in (1, len(request.replica_config)):
            raise InvalidRequest(
                f"replica_config lists {len(request.replica_config)} replicas, and replica is {request.replica}",
                param="replica",
            )
        return tuple(_listed(item, number) for number, item in enumerate(request.replica_config))
    indices = _indices(request.gpu_idx, "gpu_idx")
    if not indices:
        return ()
    share, rest = divmod(len(indices), request.replica)
    if rest:
        raise InvalidRequest(
            f"gpu_idx: {len(indices)} GPUs cannot be shared out evenly to {request.replica} replicas", param="gpu_idx"
        )
    count = gpu_count(request.n_gpu)
    if count not in (None, share):
        raise InvalidRequest(f"gpu_idx gives each replica {share} GPUs, and n_gpu is {request.n_gpu}", param="gpu_idx")
    where = node_name(request.worker_ip, "worker_ip")
    slices = [indices[start : start + share] for start in range(0, len(indices), share)]
    return tuple(ReplicaWish(n_gpu=share, gpu_idx=each, worker_ip=where) for each in slices)


def gpu_count(value: int | str | None, param: str = "n_gpu") -> int | None:
    """ "auto" leaves the choice to placement; None is Xinference's way to say: no GPU."""
    if value is None:
        return 0
    if isinstance(value, str):
        if value.lower() == "auto":
            return None
        raise InvalidRequest(f'{param} must be "auto", null or a number, not {value!r:.120}', param=param)
    if isinstance(value, bool) or not 0 <= value <= MAX_GPUS:
        raise InvalidRequest(f"{param} must be a whole number from 0 to {MAX_GPUS}, not {value!r:.120}", param=param)
    return value


def node_name(value: str | None, param: str) -> str:
    if value is not None and len(value) > MAX_NAME:
        raise InvalidRequest(f"{param} has {len(value)} characters; at most {MAX_NAME} are allowed", param=param)
    return value or ""


def _listed(item: ReplicaConfigItem, number: int) -> ReplicaWish:
    param = f"replica_config[{number}]"
    if len(item.devices) != 1:
        raise InvalidRequest(
            f"{param}.devices has {len(item.devices)} entries: a replica runs on one node, which takes one",
            param="replica_config",
        )
    if item.replica_uid:
        raise InvalidRequest(f"{param}.replica_uid: replicas are named by the server", param="replica_config")
    device = item.devices[0]
    indices = _indices(device.gpu_idx, f"{param}.gpu_idx")
    count = gpu_count(device.n_gpu, f"{param}.n_gpu")
    if indices and count not in (None, len(indices)):
        raise InvalidRequest(
            f"{param}: gpu_idx names {len(indices)} GPUs, and n_gpu is {count}", param="replica_config"
        )
    return ReplicaWish(
        n_gpu=len(indices) or count, gpu_idx=indices, worker_ip=node_name(device.worker_ip, f"{param}.worker_ip")
    )


def _indices(value: int | Sequence[int] | None, param: str) -> tuple[int, ...]:
    if value is None:
        return ()
    indices = (value,) if isinstance(value, int) else tuple(value)
    if any(isinstance(index, bool) or not 0 <= index < MAX_GPUS for index in indices):
        raise InvalidRequest(f"{param}: positions of GPUs are from 0 to {MAX_GPUS - 1}", param=param)
    if len(set(indices)) != len(indices):
        raise InvalidRequest(f"{param} names a GPU twice", param=param)
    return indices
