"""Gauges and counts of models and replicas, from the table of models and the replicas' last reports at the scrape."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xinfer_runtime.models import EngineStats, ModelStatus
from xinfer_runtime.routing.breaker import BreakerState
from xinfer_runtime.routing.router import Router


@dataclass(frozen=True)
class ModelLoad:
    """Of one model: the reports of its ready replicas, the requests that wait in this gateway, the breakers by replica,
    and its replicas by node and state."""

    stats: tuple[EngineStats, ...] = ()
    queued: int = 0
    breakers: Mapping[str, BreakerState] = field(default_factory=dict)
    replicas: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, uid: str, status: ModelStatus, router: Router) -> "ModelLoad":
        places = Counter((replica.node, str(replica.state)) for replica in status.replicas)
        return cls(tuple(router.stats(uid).values()), router.waiting(uid), router.breakers(uid), places)


Load = Callable[[], dict[str, ModelLoad]]
_SUMS: tuple[tuple[str, str, Callable[[EngineStats], float]], ...] = (
    ("requests_running", "Requests being generated", lambda stats: stats.running),
    ("requests_waiting", "Requests queued in the engines", lambda stats: stats.waiting),
    ("kv_cells_used", "Cells of the KV caches that hold tokens of running requests", lambda stats: stats.kv_used),
    ("kv_cells", "Cells of the KV caches", lambda stats: stats.kv_total),
    ("tokens_per_second", "Tokens generated per second, lately", lambda stats: stats.tokens_per_second),
)
_LARGEST: tuple[tuple[str, str, Callable[[EngineStats], float]], ...] = (
    ("step_seconds", "Mean time of the engine's last steps, of the slowest replica", lambda stats: stats.step_seconds),
)
_COUNTS: tuple[tuple[str, str, Callable[[EngineStats], float]], ...] = (
    ("prefill_tokens", "Prompt tokens of requests that the engines took up", lambda stats: stats.prompt_tokens),
    ("prefix_hit_tokens", "Those of them that were in the KV cache", lambda stats: stats.cached_tokens),
    ("restored_tokens", "Tokens whose cells came back from host memory", lambda stats: stats.restored_tokens),
    ("drafted_tokens", "Tokens guessed by speculation", lambda stats: stats.drafted_tokens),
    ("accepted_tokens", "Guessed tokens that came", lambda stats: stats.accepted_tokens),
)
"""What replicas count since their start."""


class LoadCollector(Collector):
    def __init__(self, load: Load) -> None:
        self._load = load

    def collect(self) -> Iterator[Metric]:
        models = self._load()
        for combine, gauges in ((sum, _SUMS), (_largest, _LARGEST)):
            for name, help_text, value in gauges:
                family = GaugeMetricFamily(f"xinfer_{name}", help_text, labels=["model"])
                for model, load in models.items():
                    family.add_metric([model], combine(map(value, load.stats)))
                yield family
        for name, help_text, value in _COUNTS:
            counter = CounterMetricFamily(f"xinfer_{name}", help_text, labels=["model"])
            for model, load in models.items():
                counter.add_metric([model], sum(map(value, load.stats)))
            yield counter
        queued = GaugeMetricFamily("xinfer_requests_queued", "Requests that wait in this server", labels=["model"])
        replicas = GaugeMetricFamily("xinfer_replicas", "Replicas by node and state", labels=["model", "node", "state"])
        breakers = GaugeMetricFamily(
            "xinfer_breaker_open",
            "1 for a replica that is put aside, 0.5 for one that is probed, 0 for one that is trusted",
            labels=["model", "replica"],
        )
        for model, load in models.items():
            queued.add_metric([model], load.queued)
            for (node, state), count in load.replicas.items():
                replicas.add_metric([model, node, state], count)
            for replica, breaker in load.breakers.items():
                breakers.add_metric([model, replica], _OPEN[breaker])
        yield from (queued, replicas, breakers)


_OPEN = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}


def _largest(values: Iterable[float]) -> float:
    return max(values, default=0.0)
