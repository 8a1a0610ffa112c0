"""The panel where ipywidgets are missing."""

from typing import Any

from xinfer_runtime.client import Client
from xinfer_runtime.client.table import html_table, text_table

_HINT = "For buttons and progress bars: pip install ipywidgets, and restart the kernel. %xinfer launch and stop work."


class PlainPanel:
    """A table of the models as they are when it is shown."""

    def __init__(self, client: Client | None = None) -> None:
        self._client = client or Client()

    def close(self) -> None:
        """Nothing runs behind this panel."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        del include, exclude
        models = self._client.list_models().descriptions
        return {
            "text/plain": f"{text_table(models)}\n{_HINT}",
            "text/html": f"{html_table(models)}<p>{_HINT}</p>",
        }
