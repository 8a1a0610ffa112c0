"""How many tokens of prompts a step computes while others decode, by what steps took so far. It does no I/O.

Everybody's next token waits for the prompts of a step (Agrawal et al., Sarathi-Serve, OSDI 2024). A CPU computes a
prompt in hardly more time for being cut into parts, so a part is as large as keeps that wait within a few times what it
is without. One token in a hundred may wait longer, where many prompts are there: in one piece they are done sooner,
and those who start together go on together, which is what a CPU computes fastest.
"""

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from numpy.typing import NDArray

_STRETCH = 2.5
"""How many times as long as without prompts the next token of those who decode may take."""

_LEAST = 32
"""Tokens. Parts of 32 are computed at 0.85 of the speed of parts of 128 (125 M parameters, Q8_0, two cores), and of 16
at 0.64."""

_AT_FIRST = 64
"""Tokens, while little is known."""

_LATE = 1 / 128
"""Of all tokens, so many may be late."""

_MOST_LATE = 8
"""So many late tokens are saved up, or one for each that decodes."""

_CHEAPEST = 16
"""Tokens of a prompt that take as long as one of somebody who decodes, at most."""

_UNBOUND = 1 << 30

_MEMORY = 64
"""Steps after which one counts a third."""

_SHORTEST = 1e-6
"""Seconds."""

_OUTLIER = 3.0
"""A step that took so many times what was expected was interrupted; it counts, but for no more than that."""


class PromptShare:
    """Tells how many tokens of prompts a step may have. `pace` is for how many seconds tokens are kept to be sent
    together: so much goes unnoticed.
    """

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._cost = StepCost()
        self._usual = _AT_FIRST
        """What the step that was planned last has, unless it may be long."""
        self._late = float(_MOST_LATE)
        """Tokens that may yet be late."""

    def tokens(self, decoding: int, prompts: int) -> int:
        """For the next step, in which so many decode, while so many wait for their first token."""
        self._usual = max(_LEAST, int(self._in_time(decoding) * max(1.0, prompts / decoding)))
        return _UNBOUND if 2 * prompts >= decoding <= self._late else self._usual

    def observe(self, decoding: int, tokens: int, seconds: float) -> None:
        """A step took so long, in which so many decoded, with so many tokens of prompts."""
        late = decoding if tokens > self._usual else 0
        self._late = min(self._late + decoding * _LATE - late, max(_MOST_LATE, decoding))
        self._cost.observe(decoding, tokens, seconds)

    def _in_time(self, decoding: int) -> float:
        """Tokens that keep the next token of so many within what it may take."""
        alone, each = self._cost.seconds(decoding, 0), self._cost.per_token
        if alone is None or each is None:
            return _AT_FIRST
        # Steps that were all alike may let prompts seem to be free.
        each = max(each, alone / (_CHEAPEST * decoding))
        return (_STRETCH * max(self._pace, alone) - alone) / each


class StepCost:
    """Seconds of a step as a linear function of how many decode and how many tokens of prompts it has: least squares
    over the last steps, in which each counts less the older it is.
    """

    def __init__(self) -> None:
        self._moments: NDArray[np.float64] = np.zeros((3, 3))
        self._targets: NDArray[np.float64] = np.zeros(3)
        self._weights: NDArray[np.float64] | None = None

    @property
    def per_token(self) -> float | None:
        """Of a prompt; None while too little is known."""
        return None if self._weights is None else max(float(self._weights[2]), 0.0)

    def seconds(self, decoding: int, tokens: int) -> float | None:
        """What such a step is expected to take; None while too little is known."""
        return None if self._weights is None else max(float(self._weights @ _features(decoding, tokens)), _SHORTEST)

    def observe(self, decoding: int, tokens: int, seconds: float) -> None:
        expected = self.seconds(decoding, tokens)
        if expected is not None:
            seconds = min(seconds, _OUTLIER * expected)
        features = _features(decoding, tokens)
        keep = 1 - 1 / _MEMORY
        self._moments = keep * self._moments + np.outer(features, features)
        self._targets = keep * self._targets + features * seconds
        # A little of a ridge: for a while all steps may be alike.
        self._weights = np.asarray(np.linalg.solve(self._moments + 1e-4 * np.eye(3), self._targets), dtype=np.float64)


def _features(decoding: int, tokens: int) -> NDArray[np.float64]:
    return np.array((1.0, decoding, tokens))
