"""Speculative decoding: tokens that are likely to come are computed along with the last one that did.

Each is a row of the step like any other. The sampler then draws after each row as it would have without, and as long as
what it draws is what was guessed, the next row is the right one. So nothing depends on the guesses but the speed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from xinfer_runtime.engines.llama_cpp.draft_control import Acceptance, DraftControl
from xinfer_runtime.engines.llama_cpp.prompt_lookup import PromptLookup
from xinfer_runtime.engines.llama_cpp.scheduler import TokenSequence, Work


@dataclass(eq=False)
class _Guessed:
    """What is kept of one sequence."""

    acceptance: Acceptance
    lookup: PromptLookup = field(default_factory=PromptLookup)


class Speculation:
    """Guesses for the sequences of one engine, up to `most` tokens each, where it pays."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._control = DraftControl()
        self._guessed: WeakKeyDictionary[TokenSequence, _Guessed] = WeakKeyDictionary()
        self.drafted = 0
        """Tokens guessed, all together."""
        self.accepted = 0
        """Those of them that came."""

    def propose(
        self, sequences: Sequence[TokenSequence], room: int, wanted: Callable[[int], int]
    ) -> list[Sequence[int]]:
        """Guesses for each of the sequences, which decode, `room` in all; for each as many as are `wanted` by its
        key.
        """
        if room < 1 or self._control.rests():
            return [()] * len(sequences)
        known = [self._of(sequence) for sequence in sequences]
        drafts = [
            each.lookup.propose(sequence.tokens, min(self._most, wanted(sequence.key)))
            for each, sequence in zip(known, sequences, strict=True)
        ]
        rates = [each.acceptance.rate for each in known]
        lengths = self._control.lengths(rates, [len(draft) for draft in drafts], len(sequences), room)
        return [draft[:length] for draft, length in zip(drafts, lengths, strict=True)]

    def judge(self, work: Work, accepted: int) -> None:
        """The first so many guesses of the work were what came."""
        self.drafted += len(work.draft)
        self.accepted += accepted
        self._control.judge(self._of(work.sequence).acceptance, len(work.draft), accepted)

    def stepped(self, works: Sequence[Work], seconds: float) -> None:
        """A step took so long."""
        if all(work.count == 1 and work.samples for work in works):
            self._control.stepped(sum(1 + len(work.draft) for work in works), seconds)

    def _of(self, sequence: TokenSequence) -> _Guessed:
        known = self._guessed.get(sequence)
        if known is None:
            known = self._guessed[sequence] = _Guessed(Acceptance(self._control.overall))
        return known
