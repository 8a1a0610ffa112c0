"""DRY, "don't repeat yourself": a penalty for tokens that would go on with a repetition, the longer the higher.

After p-e-w's sampler (https://github.com/oobabooga/text-generation-webui/pull/5677) as llama.cpp has it, with the same
parameters and values. Sequence breakers, such as a line's end, are texts over which no repetition counts.
"""

import math
from collections.abc import Mapping, Sequence

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.messages import DryParams

Breakers = Mapping[int, Sequence[tuple[int, ...]]]
"""By its first token, what may follow in a breaker; an empty tuple where the token breaks a sequence by itself."""

_LARGEST_EXPONENT = 88.7228391
"""Natural logarithm of the largest f32."""


_LARGEST_PENALTY = 1e38
"""More would be no f32."""


class Dry:
    """The state of one sequence: its tokens, and for each of them how long a repetition of the end ends there."""

    def __init__(self, params: DryParams, breakers: Breakers, tokens: Sequence[int]) -> None:
        self._params = params
        self._breakers = breakers
        self._breaks_alone = frozenset(token for token, tails in breakers.items() if () in tails)
        self._count = len(tokens)
        capacity = max(1024, 2 * len(tokens))
        self._tokens = np.zeros(capacity, dtype=np.int64)
        self._tokens[: self._count] = tokens
        self._repeats = np.zeros(capacity, dtype=np.int64)
        self._repeats[: self._count] = _repeats_of_the_end(tokens)
        self._heads = np.zeros(capacity, dtype=np.bool_)
        self._heads[: self._count] = [token in breakers for token in tokens]

    def accept(self, token: int) -> None:
        """A token was generated."""
        count = self._count
        if count == len(self._tokens):
            for name in ("_tokens", "_repeats", "_heads"):
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros_like(getattr(self, name))]))
        # What ended at the token before goes on here, where the token is the same; all else does not.
        if count:
            np.multiply(self._repeats[: count - 1] + 1, self._tokens[1:count] == token, out=self._repeats[1:count])
            self._repeats[0] = self._tokens[0] == token
        self._tokens[count], self._repeats[count] = token, 0
        self._heads[count] = token in self._breakers
        self._count += 1

    def penalize(self, logits: NDArray[np.float32]) -> None:
        """Lower, in place, the logits (vocabulary,) of tokens that would go on with a repetition."""
        params = self._params
        window = self._count if params.penalty_last_n < 0 else min(self._count, params.penalty_last_n)
        if window <= params.allowed_length:
            return
        limit = self._since_a_break(window)
        if limit < params.allowed_length:
            return
        start = self._count - window
        long = np.flatnonzero(self._repeats[start : self._count - 1] >= params.allowed_length)
        # A repetition counts as far as it lies in the window, and no further back than the last breaker.
        repeats = np.minimum(np.minimum(self._repeats[start + long], long + 1), limit)
        long, repeats = long[repeats >= params.allowed_length], repeats[repeats >= params.allowed_length]
        if not len(long):
            return
        tokens, which = np.unique(self._tokens[start + 1 + long], return_inverse=True)
        longest = np.zeros(len(tokens), dtype=np.int64)
        np.maximum.at(longest, which, repeats)
        exponents = (longest - params.allowed_length).astype(np.float64)
        if params.base > 1.000001:
            exponents = np.minimum(exponents, int(_LARGEST_EXPONENT / math.log(params.base)))
        penalties = np.minimum(params.multiplier * params.base**exponents, _LARGEST_PENALTY)
        penalized = np.array([token not in self._breaks_alone for token in tokens.tolist()])
        logits[tokens[penalized]] -= penalties[penalized].astype(np.float32)

    def _since_a_break(self, window: int) -> int:
        """How many of the last `window` tokens come after the last breaker."""
        heads: list[int] = np.flatnonzero(self._heads[self._count - window : self._count]).tolist()
        for place in reversed(heads):
            after = window - 1 - place
            at = self._count - window + place
            found = [
                len(tail)
                for tail in self._breakers[int(self._tokens[at])]
                if len(tail) <= after and tuple(self._tokens[at + 1 : at + 1 + len(tail)].tolist()) == tail
            ]
            if found:
                return after - max(found)
        return window


def _repeats_of_the_end(tokens: Sequence[int]) -> list[int]:
    """For each place, how many tokens up to it are also the last ones of all; 0 for the last place.

    The Z-algorithm (Gusfield, Algorithms on Strings, Trees, and Sequences, 1997), from the end: linear in the tokens.
    """
    backward, count = tokens[::-1], len(tokens)
    found = [0] * count
    left = right = 0
    for place in range(1, count):
        length = min(found[place - left], right - place) if place < right else 0
        while place + length < count and backward[length] == backward[place + length]:
            length += 1
        if place + length > right:
            left, right = place, place + length
        found[place] = length
    return found[::-1]
