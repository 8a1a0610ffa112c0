"""What the magics of one kernel remember: the server, the model in use, and the conversation."""

from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError

from xinfer_runtime.client import Client
from xinfer_runtime.client.errors import ConnectionFailed

_NONE_RUNS = "No model is running. Launch one: %xinfer launch xinfer-demo"


class NotebookSession:
    """`connect` makes the client when one is first needed, and again after the server could not be reached.

    Attributes:
        model: uid of the model in use, chosen by `%xinfer use` or `launch`.
        messages: the conversation that `%%xinfer --chat` continues.
    """

    def __init__(self, connect: Callable[[], Client] = Client) -> None:
        self._connect = connect
        self._client: Client | None = None
        self.model: str | None = None
        self.messages: list[dict[str, Any]] = []

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def forget_server(self, error: Exception) -> None:
        """Looks for the server anew next time, if `error` says that it cannot be reached."""
        if isinstance(error, ConnectionFailed):
            self.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def choose_model(self, given: str | None) -> str:
        """The uid to prompt: the given one, the one in use, or the only one there is.

        Raises:
            UsageError: there is none, or more than one.
        """
        if given or self.model:
            return given or self.model or ""
        models = self.client.list_models()
        usable = [uid for uid, model in models.items() if model.state == "ready"] or list(models)
        if not usable:
            raise UsageError(_NONE_RUNS)
        if len(usable) > 1:
            raise UsageError(f"Several models are running: {', '.join(usable)}. Choose one: %xinfer use {usable[0]}")
        return usable[0]
