"""Bounds the thoughts of a model: when their tokens are spent, nothing but what ends them can come."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.chat.output_parser import OutputForm


@dataclass(frozen=True)
class ThoughtMarks:
    """What opens and closes thoughts, what opens more of them afterwards, and what is written when they are over."""

    opening: str
    closing: str
    reopening: str
    ending: str


_HARMONY = ThoughtMarks(
    "<|channel|>analysis<|message|>",
    "<|end|>",
    "<|start|>assistant<|channel|>analysis<|message|>",
    # Models that were cut off would go on to think in another message.
    "<|end|><|start|>assistant<|channel|>final<|message|>",
)


def thought_marks(form: OutputForm) -> ThoughtMarks | None:
    """The marks of an output of that form; None where it has no thoughts."""
    if form.harmony:
        return _HARMONY
    if form.thoughts is None:
        return None
    return ThoughtMarks(form.thoughts.opening, form.thoughts.closing, "", f"\n{form.thoughts.closing}")


class ThoughtBudget:
    """The thoughts of one output, of which there are at most `budget` tokens.

    `inside` says that the prompt opened them. `ending` are the tokens of what ends them.
    """

    def __init__(
        self,
        marks: ThoughtMarks,
        budget: int,
        ending: Sequence[int],
        piece: Callable[[int], bytes],
        *,
        inside: bool = False,
    ) -> None:
        self._opening, self._closing, self._reopening = (
            mark.encode() for mark in (marks.opening, marks.closing, marks.reopening)
        )
        self._left = budget
        self._ending = tuple(ending)
        self._piece = piece
        self._thinking = inside
        self._over = False
        """Whether no more thoughts can come."""
        self._pending = b""
        """Text in which a mark may begin."""
        self._forced: deque[int] = deque(self._ending if inside and budget <= 0 else ())

    @property
    def spent(self) -> bool:
        """Whether the next token is one that ends the thoughts."""
        return bool(self._forced)

    def accept(self, token: int) -> None:
        """A token was generated, here or by the replica that this request comes from."""
        if self._forced:
            self._forced.popleft()
            self._over = not self._forced
        elif not self._over:
            self._pending += self._piece(token)
            if self._thinking:
                self._left -= 1
                self._think()
            else:
                self._look_for_thoughts()

    def rule_out(self, logits: NDArray[np.float32]) -> None:
        """Set, in place, the logits (vocabulary,) of all tokens to -inf but of the one that must come, if one must."""
        if self._forced:
            logits[:] = -np.inf
            logits[self._forced[0]] = 0.0

    def _look_for_thoughts(self) -> None:
        start = self._pending.lstrip()
        if start.startswith(self._opening):
            self._pending, self._thinking = start[len(self._opening) :], True
            self._think()
        elif start and not self._opening.startswith(start):
            self._over = True

    def _think(self) -> None:
        _, found, rest = self._pending.partition(self._closing)
        if found:
            self._pending, self._thinking = rest, False
            self._opening, self._over = self._reopening, not self._reopening
        elif self._left <= 0:
            self._forced.extend(self._ending)
        else:
            self._pending = self._pending[-len(self._closing) :]
