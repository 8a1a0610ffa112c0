"""What the router decided, as Prometheus series."""

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.registry import Collector

from xinfer_runtime.messages import Priority
from xinfer_runtime.routing.choice import Choice
from xinfer_runtime.routing.router_watch import RouterWatch

_PREFIX_BUCKETS = (0, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
_QUEUE_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)


class RoutingMetrics(RouterWatch):
    """`collectors` are the series, all in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decisions = Counter(
            "xinfer_routing_decisions",
            "Requests sent to a replica, by why it was chosen: prefix, load, or only",
            ["model", "reason"],
            registry=registry,
        )
        self._prefix = Histogram(
            "xinfer_routing_prefix_tokens",
            "Estimated tokens of the prompt that the chosen replica had cached",
            ["model"],
            buckets=_PREFIX_BUCKETS,
            registry=registry,
        )
        self._queue = Histogram(
            "xinfer_queue_seconds",
            "How long requests waited in this server for a replica with room",
            ["model", "priority"],
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self._failovers = Counter(
            "xinfer_failovers",
            "Replicas lost with a request that goes on elsewhere, before its first token (waiting) or after",
            ["model", "stage"],
            registry=registry,
        )
        self._moves = Counter(
            "xinfer_moves",
            "Requests that left a replica before it went, with their state (kept) or to be computed again (recomputed)",
            ["model", "state"],
            registry=registry,
        )
        self.collectors: list[Collector] = [
            self._decisions,
            self._prefix,
            self._queue,
            self._failovers,
            self._moves,
        ]

    def routed(self, uid: str, choice: Choice) -> None:
        self._decisions.labels(uid, choice.reason).inc()
        self._prefix.labels(uid).observe(choice.cached)

    def queued(self, uid: str, priority: Priority, seconds: float) -> None:
        self._queue.labels(uid, priority).observe(seconds)

    def moved(self, uid: str, *, computed: bool) -> None:
        self._moves.labels(uid, "kept" if computed else "recomputed").inc()

    def lost(self, uid: str, *, begun: bool) -> None:
        self._failovers.labels(uid, "streaming" if begun else "waiting").inc()
