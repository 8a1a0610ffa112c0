"""What a process wrote before it ended, as others may read it: without stacks and folders."""

import re

LINES = 3
LINE_LIMIT = 200

_FRAME = re.compile(r'\s+File "')
# Not the paths of URLs: these follow a host.
_FOLDERS = re.compile(r"""(?<![\w.:/])~?/(?:[^\s/'"`:,;()<>|]+/)+""")


def last_words(text: str) -> str:
    """The last lines of `text` in one; of a traceback, what was raised. Empty where there are none."""
    kept = []
    in_stack = False
    for line in text.splitlines():
        if line.startswith("Traceback (most recent call last)") or _FRAME.match(line):
            in_stack = True
        elif not (in_stack and line[:1].isspace()):
            in_stack = False
            if line.strip():
                kept.append(without_folders(line.strip())[-LINE_LIMIT:])
    return " | ".join(kept[-LINES:])


def without_folders(text: str) -> str:
    """`text` with the name of each file instead of its path."""
    return _FOLDERS.sub("", text)
