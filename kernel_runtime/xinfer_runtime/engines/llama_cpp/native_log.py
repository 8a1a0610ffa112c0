"""llama.cpp's log lines, kept instead of printed.

llama.cpp writes to stderr unless told otherwise, and the reason why a model did not load exists nowhere but in those
lines. They go to the Python logger below at DEBUG, and the newest of them stay here for error messages.
"""

import ctypes
import logging
from collections import deque

import llama_cpp

_KEPT_LINES = 4000
_ERROR_LEVEL = 4
_CONTINUATION_LEVEL = 5

logger = logging.getLogger(__name__)

_lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)


def _receive(level: int, text: bytes, _user_data: object) -> None:
    line = text.decode("utf-8", errors="replace")
    if level == _CONTINUATION_LEVEL and _lines:
        previous_level, previous = _lines.pop()
        level, line = previous_level, previous + line
    _lines.append((level, line))
    if line.endswith("\n"):
        logger.debug("%s", line.rstrip())


# The C side keeps the bare pointer: the object must live as long as the process.
callback = llama_cpp.llama_log_callback(_receive)


def install() -> None:
    """Send llama.cpp's log lines here. Idempotent, and process-wide, as llama.cpp's log is."""
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))


def clear() -> None:
    """Forget the kept lines."""
    _lines.clear()


def lines() -> list[str]:
    """The kept lines, oldest first."""
    return [line.rstrip() for _, line in list(_lines)]


def errors(limit: int = 3) -> str:
    """The newest distinct error lines in one string, oldest first; empty when there were none."""
    found = dict.fromkeys(line.strip() for level, line in list(_lines) if level == _ERROR_LEVEL and line.strip())
    return "; ".join(list(found)[-limit:])
