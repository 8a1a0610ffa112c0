"""How far a launch is, in a line of text."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.client.printable import printable
from xinfer_runtime.client.table import format_bytes

_BAR = 24


def overall_progress(model: ModelDescription) -> float:
    """0 to 1."""
    return 1.0 if model.state == "ready" else min(max(model.progress, 0.0), 1.0)


def launch_line(model: ModelDescription, seconds: float) -> str:
    """One line of text: the stage with a bar, or how it ended."""
    name = printable(model.model_uid)
    if model.state == "ready":
        count = f" ({model.ready_replicas}/{model.replica} replicas)" if model.replica > 1 else ""
        return f"{name} is ready after {seconds:.1f} s{count}"
    if model.state == "failed":
        return f"{name} failed after {seconds:.1f} s"
    done = overall_progress(model)
    filled = round(_BAR * done)
    stage: str = model.state
    if stage == "downloading" and model.bytes_total:
        stage = f"{stage} {format_bytes(model.bytes_done)} of {format_bytes(model.bytes_total)}"
    return f"{name}  [{'#' * filled}{'.' * (_BAR - filled)}] {done:4.0%}  {stage}  {seconds:.1f} s"


class TerminalLaunch:
    """Pass it as `progress` in a terminal: one line that is written over; without a terminal, a line for each stage."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stdout
        self._clock = clock
        self._start = clock()
        self._state = ""

    def __call__(self, model: ModelDescription) -> None:
        over = model.state in ("ready", "failed")
        line = launch_line(model, self._clock() - self._start)
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{line}" + ("\n" if over else ""))
        elif model.state != self._state:
            self._stream.write(line + "\n")
        self._state = model.state
        self._stream.flush()
