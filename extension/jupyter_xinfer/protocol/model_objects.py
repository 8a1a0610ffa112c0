"""Models as the management API shows them: Xinference's names, OpenAI's list form, and our live figures."""

import time
from collections.abc import Mapping
from typing import Any

from jupyter_xinfer.protocol.xinference_objects import size_number
from xinfer_runtime.catalog.families import Family
from xinfer_runtime.catalog.model_kind import ABILITIES
from xinfer_runtime.models import EngineStats, ModelInfo, ModelStatus, Replica

NO_STATS = EngineStats()
_NEARLY = 0.99
"""The progress of what is not ready: clients take 1 for the word to begin."""


def model_object(status: ModelStatus, stats: Mapping[str, EngineStats], family: Family | None = None) -> dict[str, Any]:
    """One item of `GET /v1/models`. `stats` maps replica ids to the load last heard from them.

    `family` is what is known of the model by name; a file that was launched by path has none. What the loaded model
    says of itself comes first.
    """
    spec = status.spec
    info = next((replica.info for replica in status.replicas if replica.info is not None), None)
    by_type = ABILITIES.get(spec.type)
    known_abilities = list(by_type if by_type is not None else family.abilities if family is not None else ())
    replicas = [_replica_object(replica, stats.get(replica.id, NO_STATS)) for replica in status.replicas]
    return {
        "id": spec.uid,
        "object": "model",
        "created": int(spec.created),
        "owned_by": "jupyter-xinfer",
        "model_uid": spec.uid,
        "model_name": spec.name,
        "model_type": spec.type,
        "model_engine": spec.engine,
        "model_format": spec.format,
        "model_size_in_billions": size_number(spec.size_in_billions) if spec.size_in_billions else None,
        "quantization": spec.quantization,
        "context_length": info.context_length if info is not None else spec.context_length,
        "model_ability": list(info.abilities) if info is not None else known_abilities,
        "model_lang": list(family.languages) if family is not None else [],
        "model_description": family.description if family is not None else "",
        "model_family": (family.family or family.name) if family is not None else spec.name,
        "model_hub": None,
        "revision": None,
        "multimodal_projector": spec.engine_options.get("multimodal_projector"),
        "address": next((replica.address for replica in status.replicas if replica.address), ""),
        "accelerators": sorted({uuid for replica in status.replicas for uuid in replica.devices}),
        "n_worker": 1,
        "model_path": spec.path or None,
        "replica": spec.replica,
        "n_gpu": spec.n_gpu,
        "lora": list(info.lora) if info is not None else list(spec.engine_options.get("lora", ())),
        "state": status.state,
        "progress": progress_of(status),
        "message": status.error.message if status.error is not None else "",
        "error": {"code": status.error.code, "message": status.error.message} if status.error is not None else None,
        "memory_bytes": info.memory_bytes if info is not None and info.memory_bytes else spec.memory_bytes,
        "replicas": replicas,
        "running": sum(replica["running"] for replica in replicas),
        "waiting": sum(replica["waiting"] for replica in replicas),
        "tokens_per_second": round(sum(replica["tokens_per_second"] for replica in replicas), 1),
        **(_vector_fields(spec.context_length, info) if by_type is not None else {}),
    }


def _vector_fields(context_length: int | None, info: ModelInfo | None) -> dict[str, Any]:
    """What Xinference says of embedding models and rerankers alone."""
    return {
        "dimensions": info.dimensions if info is not None else None,
        "max_tokens": info.context_length if info is not None else context_length,
        "language": [],
        "model_revision": None,
        "type": "normal",
    }


def progress_object(status: ModelStatus) -> dict[str, Any]:
    """The body of `GET /v1/models/{uid}/progress`."""
    return {
        "progress": progress_of(status),
        "stage": status.state,
        "state": status.state,
        "message": status.error.message if status.error is not None else "",
        "download_files": [],
        "replicas": [_replica_progress(replica) for replica in status.replicas],
    }


def _replica_progress(replica: Replica) -> dict[str, Any]:
    return {
        "replica_id": replica.id,
        "progress": _progress_of(replica),
        "stage": replica.message or replica.state,
        "seconds": round(max(0.0, time.time() - replica.since), 1) if replica.since else None,
        "bytes_done": replica.bytes_done,
        "bytes_total": replica.bytes_total,
    }


def event_objects(status: ModelStatus) -> list[dict[str, Any]]:
    """The body of `GET /v1/models/{uid}/events`, oldest first."""
    return [
        {"event_type": event.type, "event_ts": event.time, "event_content": event.content} for event in status.events
    ]


def registration_object(family: Family) -> dict[str, Any]:
    """One item of `GET /v1/model_registrations/{type}`."""
    return {
        "model_name": family.name,
        "is_builtin": family.builtin,
        "model_type": family.type,
        "model_description": family.description,
        "model_lang": list(family.languages),
        "context_length": family.context_length,
        "model_ability": list(family.abilities),
        "model_specs": [
            {
                "model_format": spec.format,
                "model_size_in_billions": spec.size_in_billions,
                "quantizations": list(spec.quantizations),
            }
            for spec in family.specs
        ],
    }


def progress_of(status: ModelStatus) -> float:
    """From 0 to 1, over all replicas that are wanted; 1 only when all are ready."""
    done = [_progress_of(replica) for replica in status.replicas]
    if done.count(1.0) >= max(status.spec.replica, 1):
        return 1.0
    return min(round(sum(done) / max(len(done), status.spec.replica, 1), 3), _NEARLY)


def _progress_of(replica: Replica) -> float:
    # A model whose file is loaded is still to be tried out.
    return 1.0 if replica.state == "ready" else min(replica.progress, _NEARLY)


def _replica_object(replica: Replica, stats: EngineStats) -> dict[str, Any]:
    return {
        "replica_id": replica.id,
        "node": replica.node,
        "address": replica.address,
        "pid": replica.pid,
        "devices": list(replica.devices),
        "state": replica.state,
        "progress": _progress_of(replica),
        "bytes_done": replica.bytes_done,
        "bytes_total": replica.bytes_total,
        "message": replica.error.message if replica.error is not None else replica.message,
        "restarts": replica.restarts,
        "running": stats.running,
        "waiting": stats.waiting,
        "tokens_per_second": stats.tokens_per_second,
        "kv_used": stats.kv_used,
        "kv_total": stats.kv_total,
        "step_seconds": round(stats.step_seconds, 6),
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.cached_tokens,
        "restored_tokens": stats.restored_tokens,
        "drafted_tokens": stats.drafted_tokens,
        "accepted_tokens": stats.accepted_tokens,
    }
