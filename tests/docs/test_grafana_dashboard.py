"""The Grafana dashboard asks for series and labels that the server has."""

import json
import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from jupyter_xinfer.load_metrics import ModelLoad
from jupyter_xinfer.metrics import Metrics
from xinfer_runtime.messages import Delta, FinishReason, Priority, Usage
from xinfer_runtime.models import EngineStats
from xinfer_runtime.routing.breaker import BreakerState
from xinfer_runtime.routing.choice import Choice, Reason

DASHBOARD = json.loads((Path(__file__).parents[2] / "deploy" / "grafana" / "jupyter-xinfer.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES += [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]


def series() -> dict[str, set[str]]:
    """Every series that the server may have, with its labels."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    load = ModelLoad((EngineStats(),), 1, {"m-0": BreakerState.OPEN}, {("node", "ready"): 1})
    metrics.watch_load(lambda: {"m": load})
    with metrics.launch(), metrics.request("m", "chat") as watch:
        for last in (None, FinishReason.STOP):
            watch._note(Delta("r", token_ids=(1,), finish_reason=last, usage=Usage(1, 1) if last else None))
    metrics.routing.routed("m", Choice(0, Reason.PREFIX, 1))
    metrics.routing.queued("m", Priority.BATCH, 0.0)
    metrics.routing.lost("m", begun=False)
    return {
        sample.name: set(sample.labels)
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_every_series_of_the_dashboard_exists() -> None:
    asked = {name for query in QUERIES for name in re.findall(r"xinfer_[a-z_]+", query)}
    assert len(asked) > 15
    assert asked <= series().keys()


def test_every_series_of_the_server_is_on_the_dashboard() -> None:
    shown = " ".join(QUERIES)
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in series()}
    assert {name for name in families if name not in shown} == set()


def test_every_label_that_it_groups_by_is_one_of_the_series() -> None:
    known = series()
    for query in QUERIES:
        labels = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")} | set(
            re.findall(r"\{(\w+)=", query)
        )
        for name in re.findall(r"xinfer_[a-z_]+", query):
            assert labels <= known[name], query
