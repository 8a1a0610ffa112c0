"""What the scheduler plans with: the tokens of a request, and the parts of them that a step computes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from xinfer_runtime.engines.llama_cpp.cell_operations import Operation, Save
from xinfer_runtime.engines.llama_cpp.image_rows import PlacedRows
from xinfer_runtime.engines.llama_cpp.prefix_cache import Node
from xinfer_runtime.engines.llama_cpp.prefix_store import SavedPrefix


@dataclass(eq=False)
class TokenSequence:
    """The tokens of one request and how far they are computed. `key` is the caller's name for it.

    From index `singly_from` on, tokens that are already known are computed one in a step, as they were when they were
    generated: the same shape of computation gives the same rounding (see `Generation.replay`).
    """

    key: int
    tokens: list[int]
    singly_from: int | None = None
    adapter: str = ""
    """What its cells are computed with, and may be shared among."""
    batch: bool = False
    """Whether interactive ones go first."""
    images: Sequence[PlacedRows] = ()
    """What stands in place of tokens, in its order. It is computed apart from tokens."""
    moved: SavedPrefix | None = None
    """What another replica computed of it, until it is admitted."""
    passed: int = 0
    slot: int = -1
    """Its sequence in the KV cache, -1 while it waits."""
    computed: int = 0
    path: Node | None = None
    """The end of the prefix that others may use, while it runs."""
    prompt: int = 0
    """Tokens it had when it was admitted."""
    cached: int | None = None
    """Tokens that did not have to be computed when it was first admitted."""
    admissions: int = 0

    @property
    def uncomputed(self) -> int:
        return len(self.tokens) - self.computed

    @property
    def reusable(self) -> int:
        """Tokens that need not be computed if somebody has: the last one is for its logits, and those that are to be
        computed singly are not taken from others, nor any where all come from another replica.
        """
        if self.moved is not None:
            return 0
        most = len(self.tokens) - 1
        return min(most, self.singly_from or most)

    @property
    def shared(self) -> int:
        return self.path.end if self.path is not None else 0

    def next_chunk(self, room: int) -> int:
        """How many tokens to compute next, when there is room for so many."""
        boundary = len(self.tokens)
        if self.singly_from is not None:
            boundary = self.singly_from if self.computed < self.singly_from else self.computed + 1
        for image in self.images:
            if self.computed < image.end:
                boundary = min(boundary, image.end if self.computed >= image.start else image.start)
                break
        return min(room, self.uncomputed, boundary - self.computed)

    def rows(self, start: int, count: int) -> NDArray[np.float32] | None:
        """What stands from index `start` on in place of tokens; None where there are tokens."""
        for image in self.images:
            if image.start <= start < image.end:
                return image.values[start - image.start : start - image.start + count]
        return None


class Work(Struct, frozen=True):
    """Compute `count` tokens of `sequence` from index `start`; `samples` when that reaches its last token.

    The tokens of `draft` are computed after them, in case they come. Their cells are the caller's to remove.
    """

    sequence: TokenSequence
    start: int
    count: int
    samples: bool
    draft: Sequence[int] = ()

    @property
    def adapter(self) -> str:
        return self.sequence.adapter

    @property
    def tokens(self) -> Sequence[int]:
        """What is computed, guesses and all."""
        tokens = self.sequence.tokens[self.start : self.start + self.count]
        return [*tokens, *self.draft] if self.draft else tokens

    @property
    def rows(self) -> NDArray[np.float32] | None:
        """What is computed in place of tokens, for a part of an image."""
        return self.sequence.rows(self.start, self.count) if self.sequence.images else None


Propose = Callable[[Sequence[TokenSequence], int], Sequence[Sequence[int]]]
"""Guesses for each of some sequences how it goes on, with so many tokens in all at most."""


@dataclass
class Step:
    """One forward pass. The operations must be carried out on the KV cache before it, in their order."""

    work: list[Work] = field(default_factory=list)
    operations: list[Operation | Save] = field(default_factory=list)
    admitted: list[TokenSequence] = field(default_factory=list)
    """Who runs since this step."""
