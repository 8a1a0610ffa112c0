"""Stop strings in streamed text."""

from collections.abc import Sequence


class StopMatcher:
    """Passes text on until one of the stop strings has come, however the text is cut into chunks.

    Only what may still be the beginning of a stop string is held back. The stop string itself is never passed on.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found: str | None = None
        """The stop string that has come; everything after it is ignored."""

    @property
    def stopped(self) -> bool:
        return self.found is not None

    def push(self, text: str) -> str:
        """Take more text and return what is known not to belong to a stop string."""
        if not self._stops:
            return text
        if self.stopped:
            return ""
        pending = self._held + text
        # The one that ends first, however the text was cut: a stream cannot wait for a longer one that may never come.
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := pending.find(stop)) >= 0]
        if found:
            _, at, self.found = min(found)
            self._held = ""
            return pending[:at]
        keep = max(_overlap(pending, stop) for stop in self._stops)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep]

    def finish(self) -> str:
        """The text held back, now that no more will come."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with, shorter than `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
