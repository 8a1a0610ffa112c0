"""Prometheus series of the gateway. Jupyter's own `/metrics` prints them, because they live in the global registry."""

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.registry import Collector

from jupyter_xinfer.load_metrics import Load, LoadCollector
from jupyter_xinfer.routing_metrics import RoutingMetrics
from xinfer_runtime.errors import ModelNotFound, XinferError, from_info
from xinfer_runtime.messages import Delta, FinishReason

# From 1 ms for a cached prompt on a small model to a minute for a long one on a busy node.
_TTFT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DURATION_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_INTER_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)
# A caller chooses the text of an unknown model's name, so it must not become a label.
UNKNOWN_MODEL = "(unknown)"


class Metrics:
    """The series. One instance per server; `close` takes them out of the registry again."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._requests = Counter(
            "xinfer_requests",
            "Requests by outcome: stop, length, tool_calls, cancelled, or an error code",
            ["model", "endpoint", "outcome"],
            registry=registry,
        )
        self._prompt_tokens = Counter("xinfer_prompt_tokens", "Prompt tokens", ["model"], registry=registry)
        self._completion_tokens = Counter("xinfer_completion_tokens", "Generated tokens", ["model"], registry=registry)
        self._ttft = Histogram(
            "xinfer_time_to_first_token_seconds",
            "From the request's arrival to its first token",
            ["model"],
            buckets=_TTFT_BUCKETS,
            registry=registry,
        )
        self._duration = Histogram(
            "xinfer_request_duration_seconds",
            "From the request's arrival to its last token",
            ["model", "endpoint"],
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self._cached_tokens = Counter(
            "xinfer_cached_tokens", "Prompt tokens that were found in a KV cache", ["model"], registry=registry
        )
        self._inter_token = Histogram(
            "xinfer_inter_token_seconds",
            "Between two tokens of a request, the mean where several came at once",
            ["model"],
            buckets=_INTER_TOKEN_BUCKETS,
            registry=registry,
        )
        self._launches = Counter(
            "xinfer_launches",
            "Launches through this server by outcome: placed, or the error's code, such as does_not_fit",
            ["outcome"],
            registry=registry,
        )
        self.routing = RoutingMetrics(registry)
        self._collectors: list[Collector] = [
            self._requests,
            self._prompt_tokens,
            self._completion_tokens,
            self._ttft,
            self._duration,
            self._cached_tokens,
            self._inter_token,
            self._launches,
            *self.routing.collectors,
        ]

    def watch_load(self, load: Load) -> None:
        collector = LoadCollector(load)
        self._registry.register(collector)
        self._collectors.append(collector)

    @contextmanager
    def launch(self) -> Iterator[None]:
        """Count what becomes of the placement of a model."""
        outcome = "cancelled"
        try:
            yield
            outcome = "placed"
        except XinferError as error:
            outcome = error.code
            raise
        finally:
            self._launches.labels(outcome).inc()

    def close(self) -> None:
        for collector in self._collectors:
            self._registry.unregister(collector)
        self._collectors.clear()

    @contextmanager
    def request(self, model: str, endpoint: str) -> Iterator["RequestWatch"]:
        """Count and time one request, however it ends."""
        watch = RequestWatch(lambda seconds: self._inter_token.labels(model).observe(seconds))
        try:
            yield watch
        except ModelNotFound:
            model = UNKNOWN_MODEL
            watch.outcome = ModelNotFound.code
            raise
        except XinferError as error:
            watch.outcome = error.code
            raise
        finally:
            self._requests.labels(model, endpoint, watch.outcome).inc()
            if model != UNKNOWN_MODEL:
                self._record(model, endpoint, watch)

    def _record(self, model: str, endpoint: str, watch: "RequestWatch") -> None:
        self._duration.labels(model, endpoint).observe(time.monotonic() - watch.started)
        self._prompt_tokens.labels(model).inc(watch.prompt_tokens)
        self._completion_tokens.labels(model).inc(watch.completion_tokens)
        self._cached_tokens.labels(model).inc(watch.cached_tokens)
        if watch.first_token is not None:
            self._ttft.labels(model).observe(watch.first_token - watch.started)


class RequestWatch:
    """Reads the deltas of one request as they pass."""

    def __init__(self, between_tokens: Callable[[float], None]) -> None:
        self._between_tokens = between_tokens
        self._last_token = 0.0
        self.started = time.monotonic()
        self.first_token: float | None = None
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.outcome: str = "cancelled"

    async def observe(self, deltas: AsyncGenerator[Delta]) -> AsyncGenerator[Delta]:
        async with aclosing(deltas):
            async for delta in deltas:
                self._note(delta)
                yield delta

    def _note(self, delta: Delta) -> None:
        if delta.token_ids:
            self.completion_tokens += len(delta.token_ids)
            now = time.monotonic()
            if self.first_token is None:
                self.first_token = now
            else:
                self._between_tokens((now - self._last_token) / len(delta.token_ids))
            self._last_token = now
        if delta.usage is not None:
            self.prompt_tokens = delta.usage.prompt_tokens
            self.cached_tokens = delta.usage.cached_tokens
            self.completion_tokens = delta.usage.completion_tokens
        if delta.finish_reason is not None and delta.finish_reason is not FinishReason.ABORT:
            self.outcome = delta.finish_reason
        if delta.error is not None:
            self.outcome = from_info(delta.error).code
