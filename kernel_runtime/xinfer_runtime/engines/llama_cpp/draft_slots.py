"""What a draft model has computed of which sequence, and where there is room for more. Without I/O.

A sequence keeps its place, in the draft model's KV cache, while it lives and nobody needs the room more. What was
guessed wrong, or belonged to a sequence that has ended, is only used as far as it is the beginning of what is wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from xinfer_runtime.engines.llama_cpp.token_sequence import TokenSequence


@dataclass(eq=False)
class Place:
    """The tokens that are in the cells of sequence `slot`. The first `agreed` are surely its owner's."""

    slot: int
    tokens: list[int] = field(default_factory=list)
    agreed: int = 0
    used: int = 0


class DraftSlots:
    """So many places, which share so many cells."""

    def __init__(self, slots: int, cells: int) -> None:
        self._places = [Place(slot) for slot in range(slots)]
        self._of: WeakKeyDictionary[TokenSequence, Place] = WeakKeyDictionary()
        self._cells = cells
        self._now = 0
        self.freed: list[tuple[int, int]] = []
        """Slots and the index from which on their cells are to be freed, before anything is computed."""

    def place(self, sequence: TokenSequence, more: int, beside: Sequence[TokenSequence]) -> Place | None:
        """Where the sequence is, with room for its tokens and so many more; its tokens that are not there are to be
        computed, at least one.

        None where those `beside` it leave no room.
        """
        self._now += 1
        kept = {self._of[each] for each in beside if each in self._of}
        found = self._of.get(sequence) or self._choose(sequence.tokens, kept)
        if found is None:
            return None
        self._of[sequence] = found
        found.used = self._now
        common = _common(found.tokens, sequence.tokens, found.agreed)
        self._cut(found, min(common, len(sequence.tokens) - 1))
        found.agreed = len(found.tokens)
        if not self._make_room(len(sequence.tokens) + more - len(found.tokens), kept | {found}):
            return None
        return found

    def forget_all(self) -> None:
        """Nothing is in the cache any more."""
        self._of.clear()
        self.freed.clear()
        for place in self._places:
            place.tokens, place.agreed = [], 0

    def _choose(self, tokens: Sequence[int], kept: set[Place]) -> Place | None:
        """One that nobody has, with the longest beginning in common, or else the one unused for longest."""
        owned = set(self._of.values())
        free = [place for place in self._places if place not in owned]
        if free:
            chosen = max(free, key=lambda place: (_common(place.tokens, tokens), -len(place.tokens)))
        else:
            others = [place for place in self._places if place not in kept]
            if not others:
                return None
            chosen = min(others, key=lambda place: place.used)
            self._disown(chosen)
        chosen.agreed = 0
        return chosen

    def _make_room(self, needed: int, kept: set[Place]) -> bool:
        used = sum(len(place.tokens) for place in self._places)
        for place in sorted(self._places, key=lambda place: place.used):
            if used + needed <= self._cells:
                break
            if place not in kept and place.tokens:
                used -= len(place.tokens)
                self._disown(place)
                self._cut(place, 0)
        return used + needed <= self._cells

    def _disown(self, place: Place) -> None:
        for sequence in [each for each, its in self._of.items() if its is place]:
            del self._of[sequence]

    def _cut(self, place: Place, length: int) -> None:
        if length < len(place.tokens):
            del place.tokens[length:]
            place.agreed = min(place.agreed, length)
            self.freed.append((place.slot, length))


def _common(some: Sequence[int], others: Sequence[int], known: int = 0) -> int:
    """Tokens that both begin with, of which so many are known."""
    most = min(len(some), len(others))
    if some[known:most] == others[known:most]:
        return most
    return next(index for index in range(known, most) if some[index] != others[index])
