"""What a notebook gets: magics, their completion, and a panel of widgets."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from xinfer_runtime.notebook.extension import load_ipython_extension

if TYPE_CHECKING:
    from xinfer_runtime.client import Client

__all__ = ["load_ipython_extension", "panel"]


def panel(client: "Client | None" = None) -> Any:
    """A panel of widgets that shows, launches and stops models; a table where ipywidgets are missing.

    A kernel has one panel: asking again shows the same one, until its `close()`.
    """
    if find_spec("ipywidgets") is None:
        from xinfer_runtime.notebook.plain_panel import PlainPanel

        return PlainPanel(client)
    from xinfer_runtime.notebook.widget_panel import current_panel

    return current_panel(client)
