"""The panel of widgets, driven as a user would: by its buttons."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from xinfer_runtime import notebook
from xinfer_runtime.client import Client
from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.notebook.background import BackgroundLoop
from xinfer_runtime.notebook.widget_panel import Panel, current_panel, model_label, refresh_pause


def description(source: dict[str, Any]) -> ModelDescription:
    return msgspec.convert(source, ModelDescription)


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


class Cluster:
    """A server whose models come up at the second look."""

    def __init__(self, model: Callable[..., dict[str, Any]]) -> None:
        self.model = model
        self.models: dict[str, dict[str, Any]] = {}
        self.refuse: httpx.Response | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.refuse is not None:
            return self.refuse
        name = request.url.path.rsplit("/", 1)[-1]
        if name == "LLM":
            return httpx.Response(200, json=[{"model_name": "xinfer-demo"}])
        if request.method == "POST":
            self.models["xinfer-demo"] = self.model("xinfer-demo", "loading", progress=0.5)
            return httpx.Response(200, json={"model_uid": "xinfer-demo"})
        if request.method == "DELETE":
            del self.models[name]
            return httpx.Response(200, json=None)
        return httpx.Response(200, json={"data": list(self.models.values())})


@pytest.fixture
def cluster(model: Any) -> Cluster:
    return Cluster(model)


@pytest.fixture
def panel(cluster: Cluster) -> Iterator[Panel]:
    with Client("http://server/", "secret", transport=httpx.MockTransport(cluster)) as client:
        panel = Panel(client)
        yield panel
        panel.close()


def test_a_model_is_launched_and_stopped_by_the_buttons(panel: Panel, cluster: Cluster) -> None:
    eventually(lambda: panel.name.value == "xinfer-demo")
    panel.launch_button.click()
    eventually(lambda: "xinfer-demo" in panel._rows)
    row = panel._rows["xinfer-demo"]
    assert (row.bar.value, row.bar.layout.visibility) == (0.5, "visible")
    row.stop.click()
    eventually(lambda: not panel._rows)
    assert cluster.models == {}


def test_a_row_is_kept_while_its_model_changes(panel: Panel, cluster: Cluster, model: Any) -> None:
    cluster.models["demo"] = model("demo", "loading")
    panel._loop.submit(lambda: None)
    eventually(lambda: "demo" in panel._rows)
    row = panel._rows["demo"]
    cluster.models["demo"] = model("demo", "ready")
    panel._loop.submit(lambda: None)
    eventually(lambda: row.bar.layout.visibility == "hidden")
    assert panel._rows["demo"] is row


def test_what_the_server_refuses_is_shown(panel: Panel, cluster: Cluster) -> None:
    eventually(lambda: panel.name.value)
    cluster.refuse = httpx.Response(409, json={"error": {"message": "in <use>", "code": "conflict"}})
    panel.launch_button.click()
    eventually(lambda: panel.message.value == "in &lt;use&gt;")


def test_an_empty_name_is_asked_for(panel: Panel) -> None:
    eventually(lambda: panel.name.value)
    panel.name.value = ""
    panel.launch_button.click()
    assert panel.message.value.startswith("Which model?")


def test_closing_ends_the_thread(panel: Panel) -> None:
    panel.close()
    assert panel.closed
    assert not [thread for thread in threading.enumerate() if thread.name == "xinfer-panel"]


def test_the_text_form_is_a_table_without_the_key(panel: Panel, cluster: Cluster, model: Any) -> None:
    cluster.models["demo"] = model("demo")
    panel._loop.submit(lambda: None)
    eventually(lambda: "demo" in panel._rows)
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"].splitlines()[1].startswith("demo")
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "secret" not in str(bundle)


def test_a_kernel_has_one_panel_until_it_is_closed(cluster: Cluster) -> None:
    with Client("http://server/", "secret", transport=httpx.MockTransport(cluster)) as client:
        first = current_panel(client)
        assert current_panel(None) is first
        second = current_panel(client)
        assert second is not first
        assert first.closed
        second.close()


def test_without_ipywidgets_there_is_a_table(cluster: Cluster, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "find_spec", lambda name: None)
    cluster.models["demo"] = model("demo")
    with Client("http://server/", "secret", transport=httpx.MockTransport(cluster)) as client:
        bundle = notebook.panel(client)._repr_mimebundle_()
    assert "demo" in bundle["text/plain"]
    assert "pip install ipywidgets" in bundle["text/html"]


def test_labels_are_escaped(model: Any) -> None:
    assert "<script" not in model_label(description(model("<script>", "failed", message="<script>")))


def test_changes_are_followed_closely(model: Any) -> None:
    quiet = refresh_pause([description(model())])
    assert refresh_pause([description(model()), description(model("b", "loading"))]) < quiet


def test_the_loop_refreshes_after_an_action_and_by_itself() -> None:
    done: list[str] = []

    def refresh() -> float:
        done.append("refresh")
        return 0.01 if len(done) < 4 else 60.0

    loop = BackgroundLoop("test-loop", refresh)
    eventually(lambda: len(done) >= 4)
    loop.submit(lambda: done.append("action"))
    eventually(lambda: done[-2:] == ["action", "refresh"])
    loop.close()
    assert not loop.running
