"""What Xinference's clients read beside the models themselves: instances, engines, definitions, files, the cluster."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from xinfer_runtime import __version__
from xinfer_runtime.catalog.families import Family, FamilySpec
from xinfer_runtime.catalog.hub_reference import HubReference
from xinfer_runtime.engines.registry import ENGINES
from xinfer_runtime.models import ModelStatus, Replica, ReplicaState

_STATUS = {
    ReplicaState.PLACING: "CREATING",
    ReplicaState.DOWNLOADING: "CREATING",
    ReplicaState.LOADING: "LOADING",
    ReplicaState.READY: "READY",
    ReplicaState.DRAINING: "TERMINATING",
    ReplicaState.FAILED: "ERROR",
    # It has no word for it; such a model can be used.
    ReplicaState.SLEEPING: "READY",
}


def instance_object(status: ModelStatus, abilities: Iterable[str]) -> dict[str, Any]:
    """One item of `GET /v1/models/instances`."""
    spec = status.spec
    return {
        "model_name": spec.name,
        "model_uid": spec.uid,
        "model_version": model_version(spec.name, spec.size_in_billions, spec.format, spec.quantization),
        "model_ability": list(abilities),
        "replica": spec.replica,
        "status": _STATUS[status.state],
        "instance_created_ts": int(spec.created),
        "n_worker": 1,
        "replica_statuses": [
            replica_status(replica, index, int(spec.created)) for index, replica in enumerate(status.replicas)
        ],
    }


def replica_status(replica: Replica, index: int, created: int) -> dict[str, Any]:
    """One replica in an instance, and one item of `GET /v1/models/{uid}/replicas`."""
    return {
        "replica_id": replica.id,
        "replica_index": index,
        "replica_model_uid": replica.id,
        "replica_uid": replica.id,
        "worker_address": replica.node,
        "status": _STATUS[replica.state],
        "model_state": replica.state,
        "created_ts": created,
        "error_message": replica.error.message if replica.error is not None else None,
        "gpu_idx": None,
    }


def engines_object(family: Family) -> dict[str, Any]:
    """The body of `GET /v1/engines/{type}/{name}`: by engine, what it can be launched with."""
    parameters = [
        {
            "model_name": family.name,
            "model_format": spec.format,
            "model_size_in_billions": size_number(spec.size_in_billions),
            "quantizations": list(spec.quantizations),
        }
        for spec in family.specs
    ]
    return {ENGINES[0]: parameters}


def definition_object(family: Family) -> dict[str, Any]:
    """The body of `GET /v1/model_registrations/{type}/{name}` for a packaged model, as version 2 writes models."""
    return {
        "version": 2,
        "model_name": family.name,
        "model_description": family.description,
        "model_lang": list(family.languages),
        "model_ability": list(family.abilities),
        "model_family": family.family or family.name,
        "context_length": family.context_length,
        "model_specs": [
            {
                "model_format": spec.format,
                "model_size_in_billions": size_number(spec.size_in_billions),
                "quantization": label,
                "model_hub": None,
                "model_id": None,
                "model_uri": None,
                "model_revision": None,
            }
            for spec in family.specs
            for label in spec.quantizations
        ],
        "is_builtin": family.builtin,
    }


def cached_objects(family: Family, packaged: Path) -> list[dict[str, Any]]:
    """The files of a model that lie on this machine. Touches the disk; `packaged` is the folder of packaged files."""
    return [
        {
            "model_name": family.name,
            "model_type": family.type,
            "model_engine": ENGINES[0],
            "model_size_in_billions": size_number(spec.size_in_billions),
            "model_format": spec.format,
            "quantization": label,
            "model_version": model_version(family.name, spec.size_in_billions, spec.format, label),
            "path": str(path),
            "real_path": str(path.resolve()),
            "actor_ip_address": "127.0.0.1",
            "size_bytes": path.stat().st_size,
        }
        for spec, label, path in _files(family, packaged)
        if path.is_file()
    ]


def downloaded_object(reference: HubReference, paths: Sequence[Path]) -> dict[str, Any]:
    """A model that was downloaded to this machine. Touches the disk."""
    return {
        "model_name": PurePosixPath(reference.file).stem,
        "model_type": None,
        "model_engine": ENGINES[0],
        "model_size_in_billions": None,
        "model_format": "ggufv2",
        "quantization": None,
        "model_version": str(reference),
        "path": str(paths[0]),
        "real_path": str(paths[0].resolve()),
        "actor_ip_address": "127.0.0.1",
        "size_bytes": sum(path.stat().st_size for path in paths),
    }


def _files(family: Family, packaged: Path) -> list[tuple[FamilySpec, str, Path]]:
    # A registered model has absolute paths, which joining keeps as they are.
    return [(spec, label, packaged / file) for spec in family.specs for label, file in spec.quantizations.items()]


def model_versions(family: Family) -> list[str]:
    """The `model_version` of each file of a model."""
    return [
        model_version(family.name, spec.size_in_billions, spec.format, label)
        for spec in family.specs
        for label in spec.quantizations
    ]


def model_version(name: str, size: str | None, format_name: str, quantization: str | None) -> str:
    return f"{name}--{size or 'unknown'}B--{format_name}--{quantization or 'none'}"


def size_number(size: str) -> int | str | None:
    """7 for "7", as Xinference writes whole numbers; "0_5" stays. Embedding models have none."""
    return int(size) if size.isdecimal() else size or None


def cluster_objects(scheduler: str | None, workers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The body of `GET /v1/cluster/info`: the scheduler as the supervisor, and each Dask worker."""
    supervisor = {
        "node_type": "Supervisor",
        "ip_address": scheduler or "",
        "gpu_count": 0,
        "gpu_vram_total": 0,
        "software_version": __version__,
    }
    return [supervisor, *(_worker_object(address, worker) for address, worker in workers.items())]


def _worker_object(address: str, worker: Mapping[str, Any]) -> dict[str, Any]:
    gpus = gpu_memory(worker)
    return {
        "node_type": "Worker",
        "ip_address": address,
        "gpu_count": len(gpus),
        "gpu_vram_total": sum(gpus),
        "software_version": __version__,
    }


def gpu_memory(worker: Mapping[str, Any]) -> list[int]:
    """Bytes of each GPU that a Dask worker reports; it does where pynvml is installed."""
    totals = worker.get("gpu", {}).get("memory-total", [])
    return [int(total) for total in (totals if isinstance(totals, list | tuple) else [totals])]


def status_object(uptime: float, workers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The body of `GET /status`."""
    return {
        "uptime": int(uptime),
        "workers": {
            address: {
                "update_time": worker.get("last_seen"),
                "failure_remaining_count": 0,
                "status": {
                    "cpu": {
                        # Of the node agent's process, which is all that Dask measures.
                        "usage": worker.get("metrics", {}).get("cpu", 0.0) / 100,
                        "memory_used": worker.get("metrics", {}).get("memory"),
                    }
                },
            }
            for address, worker in workers.items()
        },
    }
