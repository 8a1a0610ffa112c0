"""Which tokens of which sequences go into the next forward pass. A state machine without I/O.

Continuous batching in the manner of Orca (Yu et al., OSDI 2022) with chunked prefill (Agrawal et al., Sarathi-Serve,
OSDI 2024) and preemption by recomputation (Kwon et al., vLLM, SOSP 2023): every step decodes one token of each
running sequence and fills the rest of the token budget with prompts, oldest request first.

A running sequence owns one cell per token it has, also for those not yet computed. So prompts that have been admitted
always fit, and only a growing sequence can use up the cells; then the youngest running sequence gives its cells back
and waits, first in the line, to be computed again.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """`cells` in the KV cache, `slots` sequences at once, `token_budget` tokens per step (at least one per slot)."""

    cells: int
    slots: int
    token_budget: int

    def __post_init__(self) -> None:
        if not 1 <= self.slots <= self.token_budget or self.cells < 1:
            raise ValueError(f"{self} cannot work: a step must have room for one token of every slot")


@dataclass(eq=False)
class TokenSequence:
    """The tokens of one request and how far they are computed. `key` is the caller's name for it.

    From index `singly_from` on, tokens that are already known are computed one in a step, as they were when they were
    generated: the same shape of computation gives the same rounding (see `Generation.replay`).
    """

    key: int
    tokens: list[int]
    singly_from: int | None = None
    slot: int = -1
    computed: int = 0

    @property
    def uncomputed(self) -> int:
        return len(self.tokens) - self.computed

    def next_chunk(self, room: int) -> int:
        """How many tokens to compute next, when there is room for so many."""
        boundary = len(self.tokens)
        if self.singly_from is not None:
            boundary = self.singly_from if self.computed < self.singly_from else self.computed + 1
        return min(room, self.uncomputed, boundary - self.computed)


@dataclass(frozen=True)
class Work:
    """Compute `count` tokens of `sequence` from index `start`; `samples` when that reaches its last token."""

    sequence: TokenSequence
    start: int
    count: int
    samples: bool


@dataclass
class Step:
    """One forward pass. The cells of `freed` slots must be freed before it."""

    work: list[Work] = field(default_factory=list)
    freed: list[int] = field(default_factory=list)


class Scheduler:
    """Sequences waiting and running. Every sequence must fit into the cells on its own.

    Use: `add` at any time; `plan` a step; compute it; `computed(step)`; for each work that samples, `append` a token or
    `remove` the sequence.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: deque[TokenSequence] = deque()
        self._running: list[TokenSequence] = []  # In order of arrival, which is the order of keys.
        self._known: dict[int, TokenSequence] = {}
        self._free_slots = list(range(limits.slots - 1, -1, -1))
        self._freed: list[int] = []
        self._used = 0
        self._closed_door = False
        self.preemptions = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        return not self._known

    @property
    def cells_used(self) -> int:
        return self._used

    def add(self, sequence: TokenSequence) -> None:
        """Put a sequence at the end of the line. Raises ValueError for one that cannot ever run."""
        if not 0 < len(sequence.tokens) <= self._limits.cells:
            raise ValueError(f"a sequence of {len(sequence.tokens)} tokens does not fit {self._limits.cells} cells")
        self._known[sequence.key] = sequence
        self._waiting.append(sequence)

    def append(self, key: int, token: int) -> None:
        """A token was sampled for a running sequence."""
        self._known[key].tokens.append(token)
        self._used += 1

    def remove(self, key: int) -> None:
        """The sequence has ended. Its slot is free at once; unknown keys are ignored."""
        sequence = self._known.pop(key, None)
        if sequence is None:
            return
        if sequence.slot < 0:
            self._waiting.remove(sequence)
        else:
            self._vacate(sequence)
            self._closed_door = False

    def plan(self) -> Step:
        """The next step; empty when there is nothing to do."""
        while self._used > self._limits.cells:
            self._preempt_youngest()
        self._admit()
        step = Step(freed=self._freed)
        self._freed = []
        # A sequence that only lacks its last token decodes; it costs one token, and must never wait for a prompt.
        decoding = [sequence for sequence in self._running if sequence.uncomputed == 1]
        room = self._limits.token_budget - len(decoding)
        for sequence in self._running:
            count = 1 if sequence.uncomputed == 1 else sequence.next_chunk(room)
            if sequence.uncomputed > 1:
                room -= count
            if count > 0:
                step.work.append(Work(sequence, sequence.computed, count, samples=count == sequence.uncomputed))
        return step

    def computed(self, step: Step) -> None:
        """The step's forward pass succeeded."""
        for work in step.work:
            work.sequence.computed = work.start + work.count

    def shed(self) -> bool:
        """The cache had no place for the planned step after all: preempt the youngest, admit nobody until one ends.

        Returns False, and does nothing, when only one sequence is left.
        """
        if len(self._running) < 2:
            return False
        self._preempt_youngest()
        self._closed_door = True
        return True

    def _admit(self) -> None:
        uncommitted = self._limits.token_budget - sum(sequence.uncomputed for sequence in self._running)
        while self._waiting and self._free_slots and uncommitted > 0 and not self._closed_door:
            sequence = self._waiting[0]
            # Leave every running sequence a few cells to grow, or the newcomer is preempted before it has said
            # anything.
            reserve = 8 * len(self._running)
            if self._used + len(sequence.tokens) + reserve > self._limits.cells and self._running:
                return
            self._waiting.popleft()
            sequence.slot = self._free_slots.pop()
            self._running.append(sequence)
            self._running.sort(key=lambda each: each.key)
            self._used += len(sequence.tokens)
            uncommitted -= sequence.uncomputed

    def _preempt_youngest(self) -> None:
        sequence = self._running[-1]
        self._vacate(sequence)
        sequence.computed = 0
        sequence.singly_from = None  # In a crowd there is no shape to keep, and one by one would take long.
        self._waiting.appendleft(sequence)
        self.preemptions += 1

    def _vacate(self, sequence: TokenSequence) -> None:
        self._running.remove(sequence)
        self._used -= len(sequence.tokens)
        self._free_slots.append(sequence.slot)
        self._freed.append(sequence.slot)
        sequence.slot = -1
