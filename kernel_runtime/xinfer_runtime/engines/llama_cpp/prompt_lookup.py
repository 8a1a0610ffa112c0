"""Guesses how a text goes on from where its last tokens stood before, in the prompt or in the answer.

Prompt lookup decoding (Saxena, 2023): no second model, and no cost but a dictionary. It pays for texts that repeat what
they were given: edits, quotations, code, structured output.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from xinfer_runtime.engines.llama_cpp.token_sequence import TokenSequence

_LENGTHS = 4, 2
"""Of the runs of tokens that are looked up, the longest first."""

_TOKEN_BITS = 24
"""More than any vocabulary needs."""

_MOST_AT_ONCE = 8192
"""Tokens taken in by one call, about 8 ms: a long prompt must not hold up everybody's step."""


class PromptLookup:
    """The index over one sequence's tokens. Each token is taken in once."""

    def __init__(self) -> None:
        self._continuations: tuple[dict[int, int], ...] = tuple({} for _ in _LENGTHS)
        """For each length, where the token after a run of it is, the last time that the run came."""
        self._indexed = 0

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may come after `tokens`, which are those of the last call and perhaps more."""
        self._take_in(tokens)
        if most < 1 or self._indexed < len(tokens):
            return []
        for length, continuations in zip(_LENGTHS, self._continuations, strict=True):
            if len(tokens) > length and (found := continuations.get(_key(tokens, len(tokens), length))) is not None:
                return _going_on(tokens, found, most)
        return []

    def _take_in(self, tokens: Sequence[int]) -> None:
        """Note for each new token the runs that it came after. The last run has no continuation yet."""
        end = min(len(tokens), self._indexed + _MOST_AT_ONCE)
        for position in range(self._indexed, end):
            for length, continuations in zip(_LENGTHS, self._continuations, strict=True):
                if position >= length:
                    continuations[_key(tokens, position, length)] = position
        self._indexed = end


class PromptLookups:
    """Guesses for the sequences of an engine."""

    pass_seconds = 0.0

    def __init__(self) -> None:
        self._lookups: WeakKeyDictionary[TokenSequence, PromptLookup] = WeakKeyDictionary()
        self._found: list[list[int]] = []

    def use_cores(self, cores: int) -> None:
        """It needs none."""

    def ready(self, sequences: Sequence[TokenSequence], wanted: Sequence[int]) -> list[int]:
        """How many tokens are found for each, of so many that are wanted."""
        self._found = [
            self._lookups.setdefault(sequence, PromptLookup()).propose(sequence.tokens, most)
            for sequence, most in zip(sequences, wanted, strict=True)
        ]
        return [len(found) for found in self._found]

    def guess(self, sequences: Sequence[TokenSequence], lengths: Sequence[int]) -> list[Sequence[int]]:
        """The first so many of those that `ready` found just before."""
        return [found[:length] for found, length in zip(self._found, lengths, strict=True)]


def _key(tokens: Sequence[int], end: int, length: int) -> int:
    """A number for the run of tokens before index `end`."""
    key = 0
    for token in tokens[end - length : end]:
        key = key << _TOKEN_BITS | token
    return key


def _going_on(tokens: Sequence[int], start: int, most: int) -> list[int]:
    """`most` tokens from index `start` on; what goes beyond the end is taken to repeat itself."""
    period = len(tokens) - start
    known = tokens[start : start + most]
    return [known[index % period] for index in range(most)]
