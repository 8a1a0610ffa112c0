"""Which inputs the next pass computes: a state machine without I/O.

Requests take turns, one input each, so that one with a thousand inputs does not make one with a single input wait for
more than the passes of a turn. A pass is filled up to its token budget from all of them; an input that is longer than
the budget gets a pass of its own.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from numpy import float32
from numpy.typing import NDArray

Vector = NDArray[float32]


@dataclass(eq=False)
class Job:
    """One request: `inputs` has the tokens of each, `vectors` what was computed of them."""

    key: int
    inputs: Sequence[Sequence[int]]
    vectors: dict[int, Vector] = field(default_factory=dict)
    planned: int = 0
    """Inputs that went into a pass, in their order."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.inputs))

    @property
    def done(self) -> bool:
        return len(self.vectors) == len(self.inputs)


@dataclass(frozen=True)
class Item:
    """One input of a job in a pass."""

    job: Job
    index: int

    @property
    def tokens(self) -> Sequence[int]:
        return self.job.inputs[self.index]


class EmbeddingQueue:
    """The jobs that have inputs to compute. `token_budget` and `max_sequences` bound a pass."""

    def __init__(self, token_budget: int, max_sequences: int) -> None:
        self._token_budget = token_budget
        self._max_sequences = max_sequences
        self._turns: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, job: Job) -> None:
        self._turns.append(job)

    def remove(self, key: int) -> None:
        """Forget a job, if it is there."""
        self._turns = deque(job for job in self._turns if job.key != key)

    def next_pass(self) -> list[Item]:
        """The inputs of the next pass; empty where there is nothing to do.

        Whose turn it is comes first, however long his input is; the others fill what is left. Whoever does not fit
        keeps his place.
        """
        items: list[Item] = []
        left = self._token_budget
        too_long: list[Job] = []
        while self._turns and len(items) < self._max_sequences and left > 0:
            job = self._turns.popleft()
            item = Item(job, job.planned)
            if items and len(item.tokens) > left:
                too_long.append(job)
                continue
            items.append(item)
            left -= len(item.tokens)
            job.planned += 1
            if job.planned < len(job.inputs):
                self._turns.append(job)
        self._turns.extendleft(reversed(too_long))
        return items
