"""The progress of a launch on the screen. It needs no widgets, and its last state stays in a saved notebook."""

import time
from collections.abc import Callable
from html import escape
from typing import Any

from IPython.display import DisplayHandle

from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.client.launch_progress import launch_line, overall_progress
from xinfer_runtime.client.printable import printable


def launch_html(model: ModelDescription, seconds: float) -> str:
    if model.state in ("ready", "failed"):
        return escape(launch_line(model, seconds))
    done = overall_progress(model)
    return (
        f'<span role="status">{escape(printable(model.model_uid))}: {escape(model.state)}</span> '
        f'<progress value="{done:.3f}" max="1"></progress> {done:.0%}, {seconds:.1f} s'
    )


class _Rendered:
    def __init__(self, model: ModelDescription, seconds: float) -> None:
        self._data = {"text/plain": launch_line(model, seconds), "text/html": launch_html(model, seconds)}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        del include, exclude
        return self._data


class NotebookLaunch:
    """Pass it as `progress` to `Client.launch_model` in a notebook."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._handle: Any = DisplayHandle()  # type: ignore[no-untyped-call]
        self._shown = False

    def __call__(self, model: ModelDescription) -> None:
        show = self._handle.update if self._shown else self._handle.display
        self._shown = True
        show(_Rendered(model, self._clock() - self._start))
