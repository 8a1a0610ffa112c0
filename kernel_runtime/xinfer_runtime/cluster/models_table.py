"""The rows that the page in the Dask dashboard shows."""

from collections.abc import Iterable

from xinfer_runtime.cluster.observed_load import ObservedLoad
from xinfer_runtime.models import EngineStats, ModelStatus

Columns = dict[str, list[str | int | float]]

MODEL_COLUMNS = ("model", "state", "ready", "running", "waiting", "queued", "tokens_per_second", "prefix_hits")
REPLICA_COLUMNS = (
    *("replica", "node", "state", "devices", "running", "waiting", "kv", "tokens_per_second", "prefix_hits"),
    *("restarts", "message"),
)


def model_columns(statuses: Iterable[ModelStatus], load: ObservedLoad) -> Columns:
    """One row per model; `kv` and `prefix_hits` are shares from 0 to 1."""
    columns: Columns = {name: [] for name in MODEL_COLUMNS}
    for status in statuses:
        stats = [found for replica in status.replicas if (found := load.of(replica.id)) is not None]
        ready = sum(replica.state == "ready" for replica in status.replicas)
        _add(
            columns,
            status.spec.uid,
            str(status.state),
            f"{ready} of {len(status.replicas)}",
            sum(each.running for each in stats),
            sum(each.waiting for each in stats),
            load.queued(status.spec.uid),
            sum(each.tokens_per_second for each in stats),
            _share(sum(each.cached_tokens for each in stats), sum(each.prompt_tokens for each in stats)),
        )
    return columns


def replica_columns(statuses: Iterable[ModelStatus], load: ObservedLoad) -> Columns:
    """One row per replica."""
    columns: Columns = {name: [] for name in REPLICA_COLUMNS}
    for status in statuses:
        for replica in status.replicas:
            stats = load.of(replica.id) or EngineStats()
            _add(
                columns,
                replica.id,
                replica.node or "-",
                str(replica.state),
                ", ".join(replica.devices) or "CPU",
                stats.running,
                stats.waiting,
                _share(stats.kv_used, stats.kv_total),
                stats.tokens_per_second,
                _share(stats.cached_tokens, stats.prompt_tokens),
                replica.restarts,
                replica.error.message if replica.error is not None else replica.message,
            )
    return columns


def _add(columns: Columns, *values: str | int | float) -> None:
    for column, value in zip(columns.values(), values, strict=True):
        column.append(value)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
