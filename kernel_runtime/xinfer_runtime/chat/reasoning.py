"""Thoughts that a model writes before its answer, between tags such as `<think>`, split off while they stream."""

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True)
class ThoughtTags:
    opening: str
    closing: str


THINK = ThoughtTags("<think>", "</think>")
"""Qwen, DeepSeek, GLM, Kimi, Nemotron and most others."""
_FAMILIES = (
    THINK,
    ThoughtTags("[THINK]", "[/THINK]"),  # Mistral
    ThoughtTags("<seed:think>", "</seed:think>"),
    ThoughtTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    ThoughtTags("<|channel>thought", "<channel|>"),  # Gemma 4
)


def thought_tags(template: str) -> ThoughtTags | None:
    """The tags that a chat template shows its model; None where it shows none."""
    return next((tags for tags in _FAMILIES if tags.opening in template), None)


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

    def __init__(self, tags: ThoughtTags = THINK, *, inside: bool = False) -> None:
        self._tags = tags
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
        opening = self._tags.opening
        if start.startswith(opening):
            self._pending, self._at = start[len(opening) :], _At.THOUGHTS
        elif start and not opening.startswith(start):
            self._at = _At.ANSWER

    def _think(self) -> str:
        if not self._thought:
            self._pending = self._pending.lstrip("\n")
        closing = self._tags.closing
        thoughts, found, rest = self._pending.partition(closing)
        if found:
            self._pending, self._at = rest, _At.GAP
            return thoughts.rstrip("\n")
        kept = next((n for n in range(len(closing) - 1, 0, -1) if thoughts.endswith(closing[:n])), 0)
        # Line ends before the closing tag belong to it.
        thoughts = thoughts[: len(thoughts) - kept].rstrip("\n")
        self._pending = self._pending[len(thoughts) :]
        self._thought = self._thought or bool(thoughts)
        return thoughts
