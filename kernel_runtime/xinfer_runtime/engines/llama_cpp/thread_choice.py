"""How many CPU threads a forward pass gets: for large passes, what measured fastest. A state machine without I/O.

llama.cpp's threads meet at a barrier after every operation. On idle cores all of them are fastest; where something else
wants a core, such as the server that sends the tokens, every barrier may wait for the operating system, and one thread
less can be faster by far. Which it is changes with the load of the machine, so it is measured while it runs.
"""

from dataclasses import dataclass

_LARGE_PASS = 8
"""Tokens from which on a pass may get another number of threads. Below, the number is fixed, since attention rounds
differently with it: the same request alone gives the same text every time."""

_TRIAL_EVERY = 48
"""Passes of a size after which the numbers of threads that are not in use are tried again."""

_MEMORY = 0.25
"""Weight of the latest time in the average."""


@dataclass
class _Candidate:
    threads: int
    seconds_per_token: float | None = None

    def observe(self, seconds: float) -> None:
        if self.seconds_per_token is None:
            self.seconds_per_token = seconds
        else:
            # A pass that waited for the operating system counts, but does not decide alone.
            seconds = min(seconds, 4 * self.seconds_per_token)
            self.seconds_per_token += _MEMORY * (seconds - self.seconds_per_token)


class ThreadChoice:
    """Chooses among `few` threads and `more`, for each size of passes (powers of two) on its own."""

    def __init__(self, few: int, *more: int) -> None:
        self._few = few
        self._numbers = sorted({few, *more}, reverse=True)
        self._candidates: dict[int, list[_Candidate]] = {}
        self._passes: dict[int, int] = {}

    def threads(self, tokens: int) -> int:
        """For the next pass, over so many tokens."""
        if tokens < _LARGE_PASS or len(self._numbers) == 1:
            return self._few
        candidates = self._of(tokens)
        for candidate in candidates:
            if candidate.seconds_per_token is None:
                return candidate.threads
        best = min(candidates, key=lambda each: each.seconds_per_token or 0.0)
        trial, rest = divmod(self._passes[tokens.bit_length()], _TRIAL_EVERY)
        if rest == 0:
            others = [each.threads for each in candidates if each is not best]
            return others[trial % len(others)]
        return best.threads

    def observe(self, tokens: int, threads: int, seconds: float) -> None:
        """A pass over so many tokens took so long."""
        if tokens < _LARGE_PASS:
            return
        self._passes[tokens.bit_length()] = self._passes.get(tokens.bit_length(), 0) + 1
        for candidate in self._of(tokens):
            if candidate.threads == threads:
                candidate.observe(seconds / tokens)

    def _of(self, tokens: int) -> list[_Candidate]:
        return self._candidates.setdefault(tokens.bit_length(), [_Candidate(number) for number in self._numbers])
