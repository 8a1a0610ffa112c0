"""Text from models and servers, made safe for a terminal."""

import re

# C0 and C1 controls but tab and newline: escape sequences could retitle the window, write the clipboard or hide text.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """`text` without terminal control characters."""
    return _CONTROLS.sub("", text)
