"""What pip's verbose output means to someone who waits: a short status for each line that is worth one."""

import re

_COMPILED = re.compile(r"\s*\[(\d+)/(\d+)\] ")
_TOLD: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\s*(JupyterLab extension.*)"), "{}"),
    (re.compile(r"\s*Collecting ([\w.-]+)"), "resolving {}"),
    (re.compile(r"\s*Downloading (?:\S*/)?(\S+? \(.*\))$"), "downloading {}"),
    (re.compile(r"\s*Building (?:wheel|editable) for (\S+)"), "building {}"),
    (re.compile(r"(Installing collected packages)"), "installing the packages"),
)
_PROBLEM = re.compile(r"\s*(ERROR|error): ")


def status_of(line: str) -> str | None:
    """The status that a line of `pip install -v` stands for, or None when it tells a waiting person nothing."""
    compiled = _COMPILED.match(line)
    if compiled is not None:
        done, total = int(compiled[1]), int(compiled[2])
        return f"compiling llama.cpp: {done} of {total} files ({100 * done // total} %)"
    for pattern, text in _TOLD:
        match = pattern.match(line)
        if match is not None:
            return text.format(match[1])
    return None


def is_problem(line: str) -> bool:
    """Whether the line reports an error, which is shown whatever else is."""
    return _PROBLEM.match(line) is not None
