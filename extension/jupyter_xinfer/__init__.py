"""jupyter-xinfer: run models from a notebook.

This package is the Jupyter server's side, and the one name users see: it hands out what lives in `xinfer_runtime`.
It stays import-light, for the Jupyter server and every kernel import it: nothing heavy is loaded before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xinfer_runtime import __version__

if TYPE_CHECKING:
    from xinfer_runtime.client import AsyncClient, Client
    from xinfer_runtime.notebook import load_ipython_extension, panel

__all__ = ["AsyncClient", "Client", "__version__", "load_ipython_extension", "panel"]

_LAZY = {
    "AsyncClient": "xinfer_runtime.client",
    "Client": "xinfer_runtime.client",
    "load_ipython_extension": "xinfer_runtime.notebook",
    "panel": "xinfer_runtime.notebook",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from jupyter_xinfer.app import XinferApp

    return [{"module": "jupyter_xinfer", "app": XinferApp}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "jupyter-xinfer"}]
