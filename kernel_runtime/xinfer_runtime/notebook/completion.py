"""Tab completion for `%xinfer` and `%%xinfer`."""

import re
import threading
import time
from collections.abc import Callable

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from xinfer_runtime.notebook.arguments import cell_parser, line_parser, option_names, subcommands

_LINE = re.compile(r"^\s*(?P<magic>%%?)xinfer\s(?P<rest>.*)$")
_WITH_MODEL = {"stop", "use", "logs"}


class CachedNames:
    """Names that are fetched in the background: asking for them never takes longer than `patience` seconds.

    A fetch that fails leaves the old names; completion is no place for errors, and the next command will tell.
    """

    def __init__(self, fetch: Callable[[], list[str]], lifetime: float = 5.0, patience: float = 0.08) -> None:
        self._fetch = fetch
        self._lifetime = lifetime
        self._patience = patience
        self._names: list[str] = []
        self._fetched = float("-inf")
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None

    def get(self) -> list[str]:
        with self._lock:
            if time.monotonic() - self._fetched < self._lifetime:
                return self._names
            if self._running is None or not self._running.is_alive():
                self._running = threading.Thread(target=self._refresh, name="xinfer-completion", daemon=True)
                self._running.start()
            running = self._running
        running.join(self._patience)
        return self._names

    def _refresh(self) -> None:
        from xinfer_runtime.errors import XinferError

        try:
            names = self._fetch()
        except XinferError:
            names = self._names
        with self._lock:
            self._names, self._fetched = names, time.monotonic()


def candidates(line: str, models: Callable[[], list[str]], catalog: Callable[[], list[str]]) -> list[str] | None:
    """The words that fit at the end of `line`, the text up to the cursor; None for a line that is not ours."""
    match = _LINE.match(line)
    if match is None:
        return None
    words = match["rest"].split()
    current = "" if not words or line[-1].isspace() else words.pop()
    if match["magic"] == "%%":
        found = option_names(cell_parser()) if current.startswith("-") else models() if not words else []
    else:
        found = _line_candidates(words, current, models, catalog)
    return sorted(name for name in found if name.startswith(current))


def _line_candidates(
    words: list[str], current: str, models: Callable[[], list[str]], catalog: Callable[[], list[str]]
) -> list[str]:
    parsers = subcommands(line_parser())
    if not words:
        return list(parsers)
    command = words[0]
    if current.startswith("-"):
        return option_names(parsers[command]) if command in parsers else []
    if len(words) > 1:
        return []
    if command == "launch":
        return catalog()
    return models() if command in _WITH_MODEL else []


class XinferMatcher:
    """Makes IPython's matcher. On our lines it gives our words and nothing else."""

    def __init__(self, models: CachedNames, catalog: CachedNames) -> None:
        self._models = models
        self._catalog = catalog

    def matcher(self) -> Callable[[CompletionContext], SimpleMatcherResult]:
        @context_matcher(identifier="xinfer")  # type: ignore[untyped-decorator]
        def xinfer_matcher(context: CompletionContext) -> SimpleMatcherResult:
            line = context.text_until_cursor
            found = candidates(line, self._models.get, self._catalog.get)
            if found is None:
                return {"completions": [], "suppress": False}
            # IPython replaces its token, which ends our word but may begin inside it, as after a colon.
            word = line.split()[-1] if line and not line[-1].isspace() else ""
            before = len(word) - len(context.token)
            completions = [SimpleCompletion(name[max(before, 0) :]) for name in found]
            return {"completions": completions, "suppress": True, "ordered": True}

        matcher: Callable[[CompletionContext], SimpleMatcherResult] = xinfer_matcher
        return matcher
