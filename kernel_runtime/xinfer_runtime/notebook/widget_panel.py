"""The panel of widgets: running models, a form to launch one, and a button to stop each. Core ipywidgets only."""

import threading
from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from xinfer_runtime.client import Client
from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.client.errors import ClientError
from xinfer_runtime.client.printable import printable
from xinfer_runtime.client.table import describe_state, format_bytes, text_table
from xinfer_runtime.errors import XinferError
from xinfer_runtime.notebook.background import BackgroundLoop

_BUSY_SECONDS, _IDLE_SECONDS, _ERROR_SECONDS = 1.0, 5.0, 30.0
_COMING_UP = ("placing", "downloading", "loading")


def refresh_pause(models: Sequence[ModelDescription]) -> float:
    """Seconds until the models should be asked for again: soon while something changes."""
    return _BUSY_SECONDS if any(model.state in (*_COMING_UP, "draining") for model in models) else _IDLE_SECONDS


def model_label(model: ModelDescription) -> str:
    """HTML of one row."""
    facts = [
        model.quantization or "",
        format_bytes(model.memory_bytes) if model.memory_bytes else "",
        f"{model.ready_replicas}/{model.replica} replicas" if model.replica > 1 else "",
        f"{model.tokens_per_second:.0f} tokens/s" if model.tokens_per_second else "",
    ]
    details = ", ".join(fact for fact in facts if fact)
    return f"<b>{escape(printable(model.model_uid))}</b> {escape(describe_state(model))}" + (
        f" <small>{escape(details)}</small>" if details else ""
    )


class _Row:
    """The widgets of one model, kept as long as it is listed so that nothing flickers."""

    def __init__(self, panel: "Panel", uid: str) -> None:
        self.label = widgets.HTML(layout=widgets.Layout(flex="1 1 auto"))
        self.bar = widgets.FloatProgress(min=0.0, max=1.0, layout=widgets.Layout(width="10em"))
        self.stop = widgets.Button(description="Stop", tooltip=f"Stop {uid}", layout=widgets.Layout(width="6em"))
        self.stop.on_click(lambda _: panel.stop(uid))
        self.box = widgets.HBox([self.label, self.bar, self.stop])

    def show(self, model: ModelDescription) -> None:
        self.label.value = model_label(model)
        self.bar.value = model.progress
        self.bar.layout.visibility = "visible" if model.state in _COMING_UP else "hidden"
        self.stop.disabled = model.state == "draining"


class Panel:
    """Shows the models of a server and lets one launch and stop them. `close()` ends its thread.

    Buttons only ask the thread, since a click may come on another thread than the one that runs cells. The lock is held
    while widgets change.
    """

    def __init__(self, client: Client | None = None) -> None:
        self._own_client = client is None
        self._client = client or Client()
        self._lock = threading.RLock()
        self._rows: dict[str, _Row] = {}
        self._models: list[ModelDescription] = []
        self._names: list[str] = []
        self._failure = ""
        self.name = widgets.Combobox(placeholder="model to launch", layout=widgets.Layout(flex="1 1 auto"))
        self.replicas = widgets.BoundedIntText(value=1, min=1, max=64, layout=widgets.Layout(width="6em"))
        self.launch_button = widgets.Button(description="Launch", button_style="primary")
        self.launch_button.on_click(lambda _: self.launch())
        self.message = widgets.HTML()
        self._empty = widgets.Label("No model is running.")
        self._list = widgets.VBox()
        form = widgets.HBox(
            [
                self.name,
                widgets.Label("replicas", layout=widgets.Layout(flex="0 0 auto")),
                self.replicas,
                self.launch_button,
            ]
        )
        self.widget = widgets.VBox([form, self.message, self._list])
        self._loop = BackgroundLoop("xinfer-panel", self._refresh)

    @property
    def closed(self) -> bool:
        return not self._loop.running

    def launch(self) -> None:
        """Launches the model in the form."""
        name, replicas = self.name.value.strip(), self.replicas.value
        if not name:
            self._say("Which model? Choose or type a name.")
            return
        self._say(f"Launching {name} ...")
        self._submit(lambda: self._client.launch_model(name, replica=replicas, wait_ready=False))

    def stop(self, uid: str) -> None:
        """Stops a model."""
        self._say(f"Stopping {uid} ...")
        self._submit(lambda: self._client.terminate_model(uid))

    def close(self) -> None:
        """Ends the thread and removes the widgets."""
        self._loop.close()
        with self._lock:
            self.widget.close()
        if self._own_client:
            self._client.close()

    def _submit(self, action: Any) -> None:
        def run() -> None:
            try:
                action()
            except XinferError as error:
                self._say(error.message)
            else:
                self._say("")

        self._loop.submit(run)

    def _refresh(self) -> float:
        try:
            if not self._names:
                self._names = [model.model_name for model in self._client.list_model_registrations()]
            models = self._client.list_models().descriptions
        except XinferError as error:
            self._fail(error)
            return _ERROR_SECONDS if isinstance(error, ClientError) else _IDLE_SECONDS
        with self._lock:
            if self._failure:
                self._failure = ""
                self._say("")
            self._show(models)
        return refresh_pause(models)

    def _fail(self, error: XinferError) -> None:
        with self._lock:
            self._failure = error.message
            self._say(error.message)

    def _show(self, models: list[ModelDescription]) -> None:
        self._models = models
        self.name.options = tuple(self._names)
        if not self.name.value and len(self._names) == 1:
            self.name.value = self._names[0]
        rows = {model.model_uid: self._rows.get(model.model_uid) or _Row(self, model.model_uid) for model in models}
        for model in models:
            rows[model.model_uid].show(model)
        gone = [row for uid, row in self._rows.items() if uid not in rows]
        self._rows = rows
        self._list.children = tuple(row.box for row in rows.values()) or (self._empty,)
        for row in gone:
            for widget in (row.label, row.bar, row.stop, row.box):
                widget.close()

    def _say(self, text: str) -> None:
        with self._lock:
            self.message.value = escape(printable(text))

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self.widget._repr_mimebundle_(**options)
        if isinstance(bundle, dict):
            bundle["text/plain"] = text_table(self._models)
        return bundle


_current: Panel | None = None


def current_panel(client: Client | None) -> Panel:
    """The kernel's panel, made anew when there is none or another client is given."""
    global _current
    if _current is not None and (client is not None or _current.closed):
        _current.close()
        _current = None
    if _current is None:
        _current = Panel(client)
    return _current
