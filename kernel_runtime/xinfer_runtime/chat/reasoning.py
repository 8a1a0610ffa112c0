"""Thoughts that a model writes before its answer, between `<think>` and `</think>`, split off while they stream."""

from enum import Enum, auto

THINK = "<think>"
ANSWER = "</think>"


class _At(Enum):
    START = auto()
    """Nothing but white space and perhaps a beginning of the opening tag came."""
    THOUGHTS = auto()
    GAP = auto()
    """After the closing tag, where empty lines may follow."""
    ANSWER = auto()


class ReasoningParser:
    """Splits streamed text into answer and thoughts. Thoughts can only come first; later tags are text.

    `inside` says that the prompt ended with the opening tag, so that the output begins with thoughts.
    """

    def __init__(self, *, inside: bool = False) -> None:
        self._at = _At.THOUGHTS if inside else _At.START
        self._thought = False
        """Whether any thought was sent: line ends before the first belong to the tag."""
        self._pending = ""

    def push(self, text: str) -> tuple[str, str]:
        """Take more output. Returns what of it is answer and what is thought."""
        self._pending += text
        if self._at is _At.START:
            self._look_for_tag()
        thoughts = self._think() if self._at is _At.THOUGHTS else ""
        if self._at is _At.GAP and (rest := self._pending.lstrip("\n")):
            self._pending, self._at = rest, _At.ANSWER
        if self._at is not _At.ANSWER:
            return "", thoughts
        answer, self._pending = self._pending, ""
        return answer, thoughts

    def finish(self) -> tuple[str, str]:
        """No more output will come. Thoughts that were never ended are thoughts."""
        text, self._pending = self._pending, ""
        if self._at is _At.THOUGHTS:
            return "", text.rstrip("\n")
        return ("" if self._at is _At.GAP else text), ""

    def _look_for_tag(self) -> None:
        start = self._pending.lstrip()
        if start.startswith(THINK):
            self._pending, self._at = start[len(THINK) :], _At.THOUGHTS
        elif start and not THINK.startswith(start):
            self._at = _At.ANSWER

    def _think(self) -> str:
        if not self._thought:
            self._pending = self._pending.lstrip("\n")
        thoughts, found, rest = self._pending.partition(ANSWER)
        if found:
            self._pending, self._at = rest, _At.GAP
            return thoughts.rstrip("\n")
        kept = next((n for n in range(len(ANSWER) - 1, 0, -1) if thoughts.endswith(ANSWER[:n])), 0)
        # Line ends before the closing tag belong to it.
        thoughts = thoughts[: len(thoughts) - kept].rstrip("\n")
        self._pending = self._pending[len(thoughts) :]
        self._thought = self._thought or bool(thoughts)
        return thoughts
