"""Speculative decoding: tokens that are likely to come are computed along with the last one that did.

Each is a row of the step like any other. The sampler then draws after each row as it would have without, and as long as
what it draws is what was guessed, the next row is the right one. So nothing depends on the guesses but the speed.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from xinfer_runtime.engines.llama_cpp.draft_control import Acceptance, DraftControl
from xinfer_runtime.engines.llama_cpp.token_sequence import TokenSequence, Work


class Drafter(Protocol):
    """Where guesses come from. `guess` follows `ready`, with lengths that are no more than what that said."""

    pass_seconds: float
    """What a further guess for every sequence takes."""

    def use_cores(self, cores: int) -> None: ...

    def ready(self, sequences: Sequence[TokenSequence], wanted: Sequence[int]) -> list[int]: ...

    def guess(self, sequences: Sequence[TokenSequence], lengths: Sequence[int]) -> list[Sequence[int]]: ...


class Speculation:
    """Guesses for the sequences of one engine, up to `most` tokens each, where it pays."""

    def __init__(self, drafter: Drafter, most: int) -> None:
        self._drafter = drafter
        self._most = most
        self._control = DraftControl()
        self._acceptances: WeakKeyDictionary[TokenSequence, Acceptance] = WeakKeyDictionary()
        self._guessing = 0.0
        """Seconds that guessing took in this step."""
        self.drafted = 0
        """Tokens guessed, all together."""
        self.accepted = 0
        """Those of them that came."""

    def use_cores(self, cores: int) -> None:
        self._drafter.use_cores(cores)

    def propose(
        self, sequences: Sequence[TokenSequence], room: int, wanted: Callable[[int], int]
    ) -> list[Sequence[int]]:
        """Guesses for each of the sequences, which decode, `room` in all; for each as many as are `wanted` by its
        key.
        """
        if room < 1 or self._control.rests():
            return [()] * len(sequences)
        started = time.perf_counter()
        most = [min(self._most, wanted(sequence.key)) for sequence in sequences]
        ready = self._drafter.ready(sequences, most)
        rates = [self._acceptance(sequence).rate for sequence in sequences]
        self._control.pass_seconds = self._drafter.pass_seconds
        lengths = self._control.lengths(rates, ready, len(sequences), room)
        drafts = self._drafter.guess(sequences, lengths)
        self._guessing = time.perf_counter() - started
        return drafts

    def judge(self, work: Work, accepted: int) -> None:
        """The first so many guesses of the work were what came."""
        self.drafted += len(work.draft)
        self.accepted += accepted
        self._control.judge(self._acceptance(work.sequence), len(work.draft), accepted)

    def stepped(self, works: Sequence[Work], seconds: float) -> None:
        """A step took so long, what guessing took included."""
        if all(work.count == 1 and work.samples for work in works):
            self._control.stepped(sum(1 + len(work.draft) for work in works), seconds - self._guessing)
        self._guessing = 0.0

    def _acceptance(self, sequence: TokenSequence) -> Acceptance:
        known = self._acceptances.get(sequence)
        if known is None:
            known = self._acceptances[sequence] = Acceptance(self._control.overall)
        return known
