"""What each word of `%xinfer` does."""

import argparse
import time
from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError

from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.client.printable import printable
from xinfer_runtime.errors import Conflict
from xinfer_runtime.notebook.same_model import same_model
from xinfer_runtime.notebook.session import NotebookSession

Show = Callable[[Any], object]
Progress = Callable[[ModelDescription], object]

_LAUNCH_OPTIONS = (
    "model_path",
    "model_uid",
    "model_type",
    "model_engine",
    "model_format",
    "model_size_in_billions",
    "quantization",
    "replica",
    "n_gpu",
    "context_length",
    "speculation",
    "draft_model",
    "prefix_store_bytes",
)


class Commands:
    """One method for each word. `show` displays an object, `write` prints a line, `progress` makes a display."""

    def __init__(
        self,
        session: NotebookSession,
        show: Show,
        write: Callable[[str], object],
        progress: Callable[[], Progress],
    ) -> None:
        self._session = session
        self._show = show
        self._write = write
        self._progress = progress

    def launch(self, arguments: argparse.Namespace) -> None:
        if not (arguments.model_name or arguments.model_path):
            raise UsageError("Which model? %xinfer launch NAME, or %xinfer launch --path FILE.gguf")
        client = self._session.client
        options = {name: getattr(arguments, name) for name in _LAUNCH_OPTIONS}
        try:
            uid = client.launch_model(arguments.model_name, wait_ready=False, **options)
        except Conflict:
            model = same_model(client.list_models().descriptions, arguments)
            if model is None:
                raise
            uid = model.model_uid
        self._session.model = uid
        if arguments.no_wait:
            self._write(f"Launching {uid}; %xinfer list shows how far it is.")
            return
        try:
            client.wait_until_ready(uid, self._progress())
        except KeyboardInterrupt:
            self._write(f"The launch of {uid} goes on; %xinfer stop {uid} ends it.")
            raise

    def list(self, arguments: argparse.Namespace) -> None:
        del arguments
        self._show(self._session.client.list_models())

    def stop(self, arguments: argparse.Namespace) -> None:
        uid = self._named_or_used(arguments.model)
        self._session.client.terminate_model(uid)
        if self._session.model == uid:
            self._session.model = None
        self._write(f"Stopped {printable(uid)}.")

    def use(self, arguments: argparse.Namespace) -> None:
        if arguments.model:
            self._session.model = self._session.client.get_model(arguments.model).uid
        self._write(f"%%xinfer prompts {printable(self._session.choose_model(None))}.")

    def logs(self, arguments: argparse.Namespace) -> None:
        for event in self._session.client.model_events(self._named_or_used(arguments.model)):
            when = time.strftime("%H:%M:%S", time.localtime(event.event_ts))
            self._write(printable(f"{when} {event.event_type:7} {event.event_content}"))

    def status(self, arguments: argparse.Namespace) -> None:
        del arguments
        info = self._session.client.info()
        cluster = info.cluster
        details = ", ".join(printable(part) for part in (cluster.scheduler, cluster.message) if part)
        self._write(f"server   {self._session.client.base_url} (jupyter-xinfer {printable(info.version)})")
        self._write(f"cluster  {printable(cluster.state)}" + (f" ({details})" if details else ""))
        self._write(f"in use   {printable(self._session.model or 'none chosen')}")
        self._show(self._session.client.list_models())

    def clear(self, arguments: argparse.Namespace) -> None:
        del arguments
        self._session.messages = []
        self._write("The conversation is forgotten.")

    def _named_or_used(self, uid: str | None) -> str:
        return uid or self._session.choose_model(None)
