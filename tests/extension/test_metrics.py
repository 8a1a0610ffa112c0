"""The Prometheus series of the gateway."""

from collections.abc import AsyncGenerator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from jupyter_xinfer.load_metrics import ModelLoad
from jupyter_xinfer.metrics import UNKNOWN_MODEL, Metrics
from xinfer_runtime.errors import DoesNotFit, EngineError, ModelNotFound
from xinfer_runtime.messages import Delta, FinishReason, Priority, Usage
from xinfer_runtime.models import EngineStats
from xinfer_runtime.routing.breaker import BreakerState
from xinfer_runtime.routing.choice import Choice, Reason


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


async def _two_steps() -> AsyncGenerator[Delta]:
    yield Delta("id", "a", (1,))
    yield Delta("id", "b", (2,), FinishReason.STOP, Usage(7, 2, 3))


async def test_a_finished_request_counts_its_tokens_and_times_the_first(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    with metrics.request("m", "chat") as watch:
        async for _ in watch.observe(_two_steps()):
            pass

    labels = {"model": "m"}
    assert registry.get_sample_value("xinfer_requests_total", {**labels, "endpoint": "chat", "outcome": "stop"}) == 1
    assert registry.get_sample_value("xinfer_prompt_tokens_total", labels) == 7
    assert registry.get_sample_value("xinfer_completion_tokens_total", labels) == 2
    assert registry.get_sample_value("xinfer_time_to_first_token_seconds_count", labels) == 1
    assert registry.get_sample_value("xinfer_inter_token_seconds_count", labels) == 1
    assert registry.get_sample_value("xinfer_cached_tokens_total", labels) == 3


def test_the_routers_decisions_are_counted(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.routing.routed("m", Choice(0, Reason.PREFIX, 640))
    metrics.routing.queued("m", Priority.BATCH, 0.3)
    metrics.routing.lost("m", begun=True)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"xinfer_{name}", {"model": "m", **labels})

    assert value("routing_decisions_total", reason="prefix") == 1
    assert value("routing_prefix_tokens_sum") == 640
    assert value("queue_seconds_bucket", priority="batch", le="0.5") == 1
    assert value("queue_seconds_bucket", priority="batch", le="0.25") == 0
    assert value("failovers_total", stage="streaming") == 1


def test_launches_count_by_what_became_of_them(metrics: Metrics, registry: CollectorRegistry) -> None:
    with metrics.launch():
        pass
    with pytest.raises(DoesNotFit), metrics.launch():
        raise DoesNotFit("too large")
    outcomes = [registry.get_sample_value("xinfer_launches_total", {"outcome": o}) for o in ("placed", "does_not_fit")]
    assert outcomes == [1, 1]


async def test_a_request_left_half_way_counts_as_cancelled_with_the_tokens_it_had(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    with metrics.request("m", "chat") as watch:
        deltas = watch.observe(_two_steps())
        await anext(deltas)
        await deltas.aclose()

    labels = {"model": "m", "endpoint": "chat", "outcome": "cancelled"}
    assert registry.get_sample_value("xinfer_requests_total", labels) == 1
    assert registry.get_sample_value("xinfer_completion_tokens_total", {"model": "m"}) == 1


def test_an_error_counts_under_its_code(metrics: Metrics, registry: CollectorRegistry) -> None:
    with pytest.raises(EngineError), metrics.request("m", "chat"):
        raise EngineError("broken")

    labels = {"model": "m", "endpoint": "chat", "outcome": "engine_error"}
    assert registry.get_sample_value("xinfer_requests_total", labels) == 1


def test_the_name_of_an_unknown_model_never_becomes_a_label(metrics: Metrics, registry: CollectorRegistry) -> None:
    with pytest.raises(ModelNotFound), metrics.request("attacker-chosen", "chat"):
        raise ModelNotFound("no such model")

    assert b"attacker-chosen" not in generate_latest(registry)
    labels = {"model": UNKNOWN_MODEL, "endpoint": "chat", "outcome": "model_not_found"}
    assert registry.get_sample_value("xinfer_requests_total", labels) == 1


def test_running_and_waiting_are_read_at_the_scrape(metrics: Metrics, registry: CollectorRegistry) -> None:
    load = {
        "m": ModelLoad(
            stats=(
                EngineStats(running=1, kv_used=5, restored_tokens=70, drafted_tokens=8, accepted_tokens=5),
                EngineStats(running=1, step_seconds=0.01),
                EngineStats(running=1, kv_used=7, step_seconds=0.03, prompt_tokens=9, cached_tokens=6),
            ),
            queued=4,
        )
    }
    metrics.watch_load(lambda: load)
    assert registry.get_sample_value("xinfer_requests_running", {"model": "m"}) == 3
    assert registry.get_sample_value("xinfer_kv_cells_used", {"model": "m"}) == 12
    assert registry.get_sample_value("xinfer_restored_tokens_total", {"model": "m"}) == 70
    assert registry.get_sample_value("xinfer_drafted_tokens_total", {"model": "m"}) == 8
    assert registry.get_sample_value("xinfer_accepted_tokens_total", {"model": "m"}) == 5
    assert registry.get_sample_value("xinfer_prefill_tokens_total", {"model": "m"}) == 9
    assert registry.get_sample_value("xinfer_prefix_hit_tokens_total", {"model": "m"}) == 6
    assert registry.get_sample_value("xinfer_step_seconds", {"model": "m"}) == 0.03
    assert registry.get_sample_value("xinfer_requests_queued", {"model": "m"}) == 4

    load["m"] = ModelLoad(breakers={"m-0": BreakerState.OPEN}, replicas={("node", "ready"): 2})
    assert registry.get_sample_value("xinfer_breaker_open", {"model": "m", "replica": "m-0"}) == 1
    assert registry.get_sample_value("xinfer_replicas", {"model": "m", "node": "node", "state": "ready"}) == 2
    assert registry.get_sample_value("xinfer_requests_running", {"model": "m"}) == 0
    assert registry.get_sample_value("xinfer_step_seconds", {"model": "m"}) == 0


def test_a_second_instance_can_follow_a_closed_one(registry: CollectorRegistry) -> None:
    Metrics(registry).close()
    Metrics(registry).close()

    assert generate_latest(registry) == b""
