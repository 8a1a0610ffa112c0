"""How many CPU threads a forward pass gets: what measured fastest. A state machine without I/O.

llama.cpp's threads meet at a barrier after every operation. On idle cores all of them are fastest; where something else
wants a core, such as the server that sends the tokens, every barrier may wait for the operating system, and one thread
less can be faster by far. Where something wants all cores, such as a training in the next notebook, a pass can take
fifty times as long, and one thread alone is faster than all. Which it is changes with the load of the machine, so it is
measured while it runs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LARGE_PASS = 8
"""Tokens from which on a pass may get another number of threads. Below, the number is fixed as long as the cores are
free, since attention rounds differently with it: the same request alone gives the same text every time."""

_CROWDED = 0.75
"""Threads that got less than this part of the time had to share their cores. They wait for each other in circles, so
that on cores of their own they get nearly all of it."""

_TRIAL_COST = 40.0
"""A number of threads that is not in use is tried again when so many times the time of its last pass has gone by."""

_MEMORY = 0.25
"""Weight of the latest time in the average."""


@dataclass
class _Candidate:
    threads: int
    seconds_per_token: float = 0.0
    tried: float = -1.0
    """When, on the clock of passes; before there were any if it was not."""
    last: float = 0.0
    """What its last pass took."""
    got: float = 1.0
    """The part of that time, on average, for which its threads had a core."""

    def observe(self, seconds: float, cpu_seconds: float, tokens: int, now: float, afresh: bool) -> None:
        each = seconds / tokens
        got = cpu_seconds / (seconds * self.threads) if seconds > 0 else 1.0
        if self.tried < 0 or afresh:
            self.seconds_per_token, self.got = each, got
        else:
            # A pass that waited for the operating system counts, but does not decide alone.
            each = min(each, 4 * self.seconds_per_token)
            self.seconds_per_token += _MEMORY * (each - self.seconds_per_token)
            self.got += _MEMORY * (got - self.got)
        self.tried = now
        self.last = seconds


class _Size:
    """Passes of about the same number of tokens: what their numbers of threads took."""

    def __init__(self) -> None:
        self.candidates: dict[int, _Candidate] = {}
        self.used = 0

    def of(self, threads: int) -> _Candidate:
        return self.candidates.setdefault(threads, _Candidate(threads))

    def crowded(self, usual: Iterable[int]) -> bool:
        """Whether none of the usual numbers of threads gets the cores that it needs."""
        tried = [each for each in map(self.of, usual) if each.tried >= 0]
        return bool(tried) and max(each.got for each in tried) < _CROWDED


class ThreadChoice:
    """Chooses among `few` threads and `more`, for each size of passes (powers of two) on its own; of crowded cores it
    uses fewer. `fixed` never does."""

    def __init__(self, few: int, *more: int, fixed: bool = False) -> None:
        self._few = few
        self._numbers = sorted({few, *more}, reverse=True)
        self._fixed = fixed
        self._sizes: dict[int, _Size] = {}
        self._clock = 0.0

    def threads(self, tokens: int) -> int:
        """For the next pass, over so many tokens."""
        if self._fixed:
            return self._few
        size = self._size(tokens)
        numbers = self._usual(tokens)
        if size.crowded(numbers):
            numbers = sorted({*numbers, *_halves(max(numbers))}, reverse=True)
        if len(numbers) == 1:
            return numbers[0]
        candidates = [size.of(number) for number in numbers]
        if (untried := next((each for each in candidates if each.tried < 0), None)) is not None:
            return untried.threads
        best = min(candidates, key=lambda each: each.seconds_per_token)
        for each in candidates:
            if each is not best and self._clock - each.tried > _TRIAL_COST * each.last:
                return each.threads
        return best.threads

    def observe(self, tokens: int, threads: int, seconds: float, cpu_seconds: float) -> None:
        """A pass over so many tokens took so long, and so much time of all cores together."""
        if self._fixed:
            return
        self._clock += seconds
        size = self._size(tokens)
        size.of(threads).observe(seconds, cpu_seconds, tokens, self._clock, afresh=threads != size.used)
        size.used = threads

    def _usual(self, tokens: int) -> list[int]:
        return self._numbers if tokens >= _LARGE_PASS else [self._few]

    def _size(self, tokens: int) -> _Size:
        return self._sizes.setdefault(tokens.bit_length(), _Size())


def _halves(number: int) -> Iterator[int]:
    while number > 1:
        number //= 2
        yield number
