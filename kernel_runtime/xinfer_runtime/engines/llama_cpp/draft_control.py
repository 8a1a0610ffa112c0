"""How many tokens to guess: what guesses were worth against what they cost. Arithmetic without I/O or a clock.

A guess at depth d of a sequence helps with the probability that it and those before it are right, a**d for an
acceptance rate a (Leviathan et al., Fast Inference from Transformers via Speculative Decoding, ICML 2023). A step of
more rows takes longer, by how much depends on machine, model and batch, and is measured. So the guesses most likely to
be right are taken as long as the tokens per second that are to be expected grow; often none are.
"""

from bisect import bisect_left
from collections.abc import Sequence
from math import log2

_WORTH = 1.05
"""Guessing must promise so much more than not guessing: the measured times are not exact."""

_MEMORY = 0.9
"""Of a sequence's acceptance, after each step with guesses for it."""

_PRIOR = 2.0
"""Guesses that what is known of all sequences counts for, when one is new."""

_SMOOTHING = 0.2
"""Of a measured time in the average."""

_PLAIN_EVERY = 64
"""While guessing, one step in so many is without, so that its time stays known."""

_PAUSES = 16, 1024
"""Steps without guesses after it did not pay, at first and at most; it doubles each time. Then it is tried again."""


class Acceptance:
    """How often the guesses for one sequence, or for all, are right."""

    def __init__(self, prior: "Acceptance | None" = None) -> None:
        self._right, self._judged = (_PRIOR * prior.rate, _PRIOR) if prior is not None else (1.0, 2.0)

    @property
    def rate(self) -> float:
        return self._right / self._judged

    def count(self, guessed: int, right: int, memory: float = _MEMORY) -> None:
        """Of so many guesses the first `right` were right; those after a wrong one say nothing."""
        self._right = self._right * memory + right
        self._judged = self._judged * memory + min(guessed, right + 1)


class StepTimes:
    """Seconds of a step by its rows: averages over numbers of rows about a fifth apart."""

    def __init__(self) -> None:
        self._points: dict[int, tuple[float, float]] = {}
        """Rows and seconds on average."""

    def observe(self, rows: int, seconds: float) -> None:
        bucket = round(4 * log2(rows))
        before = self._points.get(bucket)
        # The first may have been slow for reasons of its own, so one that is much faster counts at once.
        if before is None or seconds < before[1] / 2:
            self._points[bucket] = rows, seconds
        else:
            mean, known = before
            surprise = min(seconds, 4 * known) - known
            self._points[bucket] = mean + _SMOOTHING * (rows - mean), known + _SMOOTHING * surprise

    def expect(self, rows: int) -> float | None:
        """Between what was measured; beyond that, hope says that more rows cost nothing. None if nothing is known."""
        known = sorted(self._points.values())
        if not known:
            return None
        above = bisect_left(known, (rows, 0.0))
        if above == 0 or above == len(known):
            return known[min(above, len(known) - 1)][1]
        (fewer, shorter), (more, longer) = known[above - 1], known[above]
        return shorter + (rows - fewer) / (more - fewer) * (longer - shorter)


class DraftControl:
    """Decides for one engine. After `lengths` comes the step, then `judge` for each sequence that had guesses, and
    `stepped` if nothing but decoding was in it.
    """

    def __init__(self) -> None:
        self.overall = Acceptance()
        self.pass_seconds = 0.0
        """What it takes to guess one token for every sequence, and again for a second."""
        self._times = StepTimes()
        self._pause = 0
        self._next_pause = _PAUSES[0]
        self._plain_in = _PLAIN_EVERY

    def rests(self) -> bool:
        """Whether the next step is to be one without guesses, whatever they are. To be asked once a step."""
        if self._pause:
            self._pause -= 1
            return True
        self._plain_in -= 1
        if self._plain_in <= 0:
            self._plain_in = _PLAIN_EVERY
            return True
        return False

    def lengths(self, rates: Sequence[float], most: Sequence[int], rows: int, room: int) -> list[int]:
        """How many guesses to take for sequences of these acceptance rates, of `most` that there are for each.

        `rows` sequences decode in the step, and it has room for so many guesses. Where none are worth it, this step
        tries them all the same, and then there is a pause.
        """
        ranked = sorted(
            ((rate**depth, depth, index) for index, rate in enumerate(rates) for depth in range(1, most[index] + 1)),
            key=lambda each: -each[0],
        )[:room]
        if not ranked:
            return [0] * len(rates)
        count = self._best([(chance, depth) for chance, depth, _ in ranked], rows)
        if count:
            self._next_pause = _PAUSES[0]
        else:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, _PAUSES[1])
            count = min(len(ranked), len(rates))
        lengths = [0] * len(rates)
        for _, _, index in ranked[:count]:
            lengths[index] += 1
        return lengths

    def judge(self, sequence: Acceptance, guessed: int, right: int) -> None:
        """Of so many guesses for the sequence, the first `right` were what came."""
        sequence.count(guessed, right)
        self.overall.count(guessed, right, memory=0.99)

    def stepped(self, rows: int, seconds: float) -> None:
        """A step of so many rows, guesses included, took so long."""
        self._times.observe(rows, seconds)

    def _best(self, ranked: Sequence[tuple[float, int]], rows: int) -> int:
        """How many of the guesses, each with its chance and depth, give the most tokens per second; 0 if none are
        clearly better."""
        plain = self._times.expect(rows)
        if plain is None:
            return 0
        best, best_speed = 0, _WORTH * rows / plain
        tokens, passes = float(rows), 0
        for count, (chance, depth) in enumerate(ranked, 1):
            tokens += chance
            passes = max(passes, depth)
            seconds = (self._times.expect(rows + count) or plain) + passes * self.pass_seconds
            if tokens / seconds > best_speed:
                best, best_speed = count, tokens / seconds
        return best
