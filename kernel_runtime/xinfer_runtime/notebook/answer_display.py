"""A streamed answer on the screen: rendered Markdown in a notebook, plain text in a terminal."""

import sys
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol, TextIO

from IPython.display import DisplayHandle

from xinfer_runtime.client.completion import Completion
from xinfer_runtime.client.printable import printable
from xinfer_runtime.notebook.markdown import safe_markdown

_INTERVAL = 0.06
_FULL_RATE_CHARACTERS = 6000


def update_interval(length: int) -> float:
    """Seconds between updates of a text of `length` characters: each sends the whole text, so long ones go slower."""
    return _INTERVAL * max(1.0, length / _FULL_RATE_CHARACTERS)


class Ending(StrEnum):
    """Whether an answer came to its end."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


def closing_note(completion: Completion, ending: Ending) -> str:
    """What a reader must know about how the answer ended, or nothing."""
    if ending is Ending.INTERRUPTED:
        return "interrupted"
    if ending is Ending.FAILED:
        return "broken off"
    if completion.finish_reason == "length":
        return "cut off at the token limit"
    return ""


def tool_call_lines(completion: Completion) -> list[str]:
    return [f"{call.name}({call.arguments})" for call in completion.tool_calls]


def usage_metadata(completion: Completion, seconds: float, ending: Ending) -> dict[str, Any]:
    """What is kept in the notebook beside the answer."""
    usage = completion.usage
    return {
        "model": completion.model,
        "finish_reason": completion.finish_reason if ending is Ending.COMPLETE else str(ending),
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "seconds": round(seconds, 3),
    }


class AnswerDisplay(Protocol):
    def add(self, text: str) -> None:
        """Shows more text, at once or a little later."""

    def finish(self, completion: Completion, seconds: float, ending: Ending) -> None:
        """Shows all of it, and how it ended."""


class _Rendered:
    """One state of the answer, as a bundle of MIME types."""

    def __init__(self, text: str, calls: list[str], note: str, metadata: dict[str, Any]) -> None:
        plain = [part for part in (text, *calls, f"({note})" if note else "") if part]
        marked = [safe_markdown(text)] if text else []
        marked += [safe_markdown(f"```python\n{call}\n```") for call in calls]
        marked += [f"*({note})*"] if note else []
        self._data = {"text/plain": printable("\n".join(plain)), "text/markdown": "\n\n".join(marked)}
        self._metadata = {"xinfer": metadata} if metadata else {}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        del include, exclude
        return self._data, self._metadata


class NotebookAnswer:
    """Markdown in one output that is updated in place, at most some sixteen times a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._handle: Any = DisplayHandle()  # type: ignore[no-untyped-call]
        self._text = ""
        self._shown: float | None = None

    def add(self, text: str) -> None:
        self._text += text
        now = self._clock()
        if self._shown is None or now - self._shown >= update_interval(len(self._text)):
            self._show(_Rendered(self._text, [], "", {}))
            self._shown = self._clock()

    def finish(self, completion: Completion, seconds: float, ending: Ending) -> None:
        note = closing_note(completion, ending)
        metadata = usage_metadata(completion, seconds, ending)
        self._show(_Rendered(completion.text, tool_call_lines(completion), note, metadata))

    def _show(self, rendered: _Rendered) -> None:
        show = self._handle.display if self._shown is None else self._handle.update
        show(rendered)


class TerminalAnswer:
    """Text as it comes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def add(self, text: str) -> None:
        self._stream.write(printable(text))
        self._stream.flush()

    def finish(self, completion: Completion, seconds: float, ending: Ending) -> None:
        del seconds
        note = closing_note(completion, ending)
        lines = ["", *tool_call_lines(completion)] if completion.tool_calls and completion.text else []
        lines = lines or tool_call_lines(completion)
        self._stream.write(printable("\n".join(lines)) + (f" ({note})" if note else "") + "\n")
        self._stream.flush()
