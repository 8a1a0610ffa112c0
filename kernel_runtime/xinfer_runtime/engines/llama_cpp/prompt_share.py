"""How many tokens of prompts a step computes while others decode, by what steps took so far. It does no I/O.

Everybody's next token waits for the prompts of a step (Agrawal et al., Sarathi-Serve, OSDI 2024). A CPU computes a
prompt in hardly more time for being cut into parts, so a part is as large as keeps that wait within a few times what it
is without. One token in a hundred may wait longer, where many prompts are there: in one piece they are done sooner,
and those who start together go on together, which is what a CPU computes fastest.
"""

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np

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

_KEPT = 1 - 1 / 64
"""Of the weight of a step, when another of its kind comes."""

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
    over the last steps, in which each counts less the more of its kind came later. What prompts take is thus not
    forgotten while there are none.

    Most steps only decode, and nobody asks: they cost a few sums.
    """

    def __init__(self) -> None:
        self._sums = {False: [0.0] * 9, True: [0.0] * 9}
        """Of steps with and without prompts: of 1, d, p, dd, dp, pp, t, dt and pt."""
        self._fitted: tuple[float, float, float] | None = None
        self._stale = False

    @property
    def per_token(self) -> float | None:
        """Of a prompt; None while there was none."""
        weights = self._weights()
        return None if weights is None else max(weights[2], 0.0)

    def seconds(self, decoding: int, tokens: int) -> float | None:
        """What such a step is expected to take; None while there was no prompt."""
        weights = self._weights()
        return None if weights is None else _expected(weights, decoding, tokens)

    def observe(self, decoding: int, tokens: int, seconds: float) -> None:
        if self._fitted is not None:
            seconds = min(seconds, _OUTLIER * _expected(self._fitted, decoding, tokens))
        d, p, t = float(decoding), float(tokens), seconds
        values = (1.0, d, p, d * d, d * p, p * p, t, d * t, p * t)
        sums = self._sums[tokens > 0]
        self._sums[tokens > 0] = [_KEPT * old + new for old, new in zip(sums, values, strict=True)]
        self._stale = True

    def _weights(self) -> tuple[float, float, float] | None:
        if self._stale and self._sums[True][0]:
            n, d, p, dd, dp, pp, *targets = map(sum, zip(*self._sums.values(), strict=True))
            # A little of a ridge: for a while all steps may be alike.
            moments = np.array(((n, d, p), (d, dd, dp), (p, dp, pp))) + 1e-4 * np.eye(3)
            start, each, token = np.linalg.solve(moments, np.array(targets))
            self._fitted = float(start), float(each), float(token)
        self._stale = False
        return self._fitted


def _expected(weights: tuple[float, float, float], decoding: int, tokens: int) -> float:
    return max(weights[0] + weights[1] * decoding + weights[2] * tokens, _SHORTEST)
