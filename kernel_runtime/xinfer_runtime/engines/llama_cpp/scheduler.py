"""Which tokens of which sequences go into the next forward pass. A state machine without I/O.

Continuous batching in the manner of Orca (Yu et al., OSDI 2022) with chunked prefill (Agrawal et al., Sarathi-Serve,
OSDI 2024) and preemption by recomputation (Kwon et al., vLLM, SOSP 2023): every step decodes one token of each
running sequence and fills the rest of the token budget with prompts, oldest request first.

A running sequence needs one cell per token it has, also for those not yet computed; cells of a common prefix count
once (see `prefix_cache`). So prompts that have been admitted always fit, and only a growing sequence can use up the
cells. Then cached cells that nobody needs are freed, and when there are none, the running sequence that costs least
waits, first in the line, to be computed again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xinfer_runtime.engines.llama_cpp.cell_operations import Operation, Save
from xinfer_runtime.engines.llama_cpp.prefix_cache import PrefixCache
from xinfer_runtime.engines.llama_cpp.prompt_patience import PromptPatience
from xinfer_runtime.engines.llama_cpp.token_sequence import Propose, Step, TokenSequence, Work
from xinfer_runtime.engines.llama_cpp.waiting_order import WaitingOrder

_WORTH_WAITING = 32
"""Tokens of a common prefix for which a request waits while another computes them."""


@dataclass(frozen=True)
class Limits:
    """`cells` in the KV cache, `slots` sequences at once, `token_budget` tokens per step (at least one per slot).

    `retained` cells at most are kept for later requests when nobody needs them; None shares no prefixes. The KV cache
    has `kv_sequences`, at least one per slot; more of them let more ended requests be kept. A common prefix of fewer
    than `least_shared` tokens is computed again. With `whole_chunks` a step has at most one part of a prompt, of the
    oldest; others are in it as a whole or not at all. With `prompts_apart` the last token of a prompt is left for the
    next step, where it is one of those that decode. With `patience` prompts wait for each other (`PromptPatience`).
    A step has `drafts` guessed tokens at most. Prefixes of at least `worth_saving` tokens are offered to be saved
    before their cells are freed.
    """

    cells: int
    slots: int
    token_budget: int
    retained: int | None = None
    kv_sequences: int = 0
    least_shared: int = 1
    whole_chunks: bool = False
    prompts_apart: bool = False
    patience: int = 0
    drafts: int = 0
    worth_saving: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.slots <= self.token_budget or self.cells < 1:
            raise ValueError(f"{self} cannot work: a step must have room for one token of every slot")


class Scheduler:
    """Sequences waiting and running. Every sequence must fit into the cells on its own.

    Use: `add` at any time; `plan` a step; compute it; `computed(step)`; for each work that samples, `append` a token,
    `remove` the sequence, or `discard` it if its values are worthless.

    `prompt_share` says how many tokens of prompts a step may have, by how many sequences decode in it and how many wait
    for their first token; without it, what the budget leaves.
    """

    def __init__(self, limits: Limits, prompt_share: Callable[[int, int], int] | None = None) -> None:
        self._limits = limits
        self._prompt_share = prompt_share
        self._waiting: WaitingOrder[TokenSequence] = WaitingOrder()
        self._running: list[TokenSequence] = []  # In order of arrival, which is the order of keys.
        self._known: dict[int, TokenSequence] = {}
        self._cache = PrefixCache(max(limits.slots, limits.kv_sequences), limits.retained, limits.worth_saving)
        self._closed_door = False
        self._shortest_first = False
        self._patience = PromptPatience(limits.patience, limits.token_budget)
        self.preemptions = 0
        self.tokens_cached = 0
        """Tokens of admitted sequences that did not have to be computed, all together."""
        self.tokens_restored = 0
        """Tokens whose cells came back from where they had been saved, all together."""

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def running_slots(self) -> list[int]:
        return [sequence.slot for sequence in self._running]

    @property
    def decoding_slots(self) -> list[int]:
        """Of those that lack their last token only."""
        return [each.slot for each in self._running if len(each.tokens) - each.computed == 1]

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        return not self._known

    @property
    def cells_used(self) -> int:
        """Cells that running sequences need."""
        own = 0
        for each in self._running:  # Once for every token of a step: a generator over properties takes twice as long.
            own += len(each.tokens)
            if each.path is not None:
                own -= each.path.end
        return self._cache.pinned + own

    @property
    def cells_cached(self) -> int:
        """Cells that hold what later requests may use, and nobody needs now."""
        return self._cache.cells - self._cache.pinned

    def add(self, sequence: TokenSequence) -> None:
        """Put a sequence at the end of the line. Raises ValueError for one that cannot ever run."""
        if not 0 < len(sequence.tokens) <= self._limits.cells:
            raise ValueError(f"a sequence of {len(sequence.tokens)} tokens does not fit {self._limits.cells} cells")
        self._known[sequence.key] = sequence
        self._waiting.add(sequence)

    def computed_of(self, key: int) -> TokenSequence | None:
        """The sequence, if it runs and something of it is computed."""
        sequence = self._known.get(key)
        return sequence if sequence is not None and sequence.slot >= 0 and sequence.computed > 0 else None

    def append(self, key: int, token: int, computed: bool = False) -> None:
        """A token was sampled for a running sequence; `computed` if the step had guessed it."""
        sequence = self._known[key]
        sequence.tokens.append(token)
        sequence.computed += computed

    def remove(self, key: int) -> None:
        """The sequence has ended. Its slot is free at once; unknown keys are ignored."""
        self._end(key, trusted=True)

    def discard(self, key: int) -> None:
        """The sequence has failed: what was computed for it is used for nobody else."""
        self._end(key, trusted=False)

    def plan(self, propose: Propose | None = None) -> Step:
        """The next step; empty when there is nothing to do."""
        while self.cells_used > self._limits.cells:
            self._preempt()
        admitted = self._admit()
        # A sequence that only lacks its last token decodes; it costs one token, and must never wait for a prompt.
        decoding = [each for each in self._running if len(each.tokens) - each.computed == 1]
        drafts = self._drafts(decoding, propose) if propose is not None else {}
        guessed = sum(map(len, drafts.values()))
        self._cache.evict(self.cells_used + self.cells_cached + guessed - self._limits.cells)
        step = Step(operations=self._cache.operations(), admitted=admitted)
        room = self._prompt_room(len(decoding))
        first = True
        only_decodes = len(decoding) == len(self._running)
        prompts = [] if only_decodes else [each.uncomputed for each in self._running if each.uncomputed > 1]
        held_back = self._patience.holds_back(prompts, len(decoding))
        in_turn = self._by_turns(prompts)
        if only_decodes and not drafts:  # As most steps do, and a GPU waits for this.
            step.work = [Work(each, each.computed, 1, True) for each in decoding]
            return step
        for sequence in in_turn:
            count = 1
            if sequence.uncomputed > 1:
                if held_back:
                    continue
                count = sequence.next_chunk(room)
                if self._limits.whole_chunks and not first and count < sequence.next_chunk(self._limits.token_budget):
                    count = 0
                room -= count
                first = False
                if self._limits.prompts_apart and count == sequence.uncomputed:
                    count -= 1
            if count > 0:
                samples = count == sequence.uncomputed
                step.work.append(Work(sequence, sequence.computed, count, samples, drafts.get(sequence.key, ())))
        return step

    def computed(self, step: Step) -> None:
        """The step's forward pass succeeded."""
        for work in step.work:
            sequence = work.sequence
            sequence.computed = work.start + work.count
            if self._cache.sharing and sequence.path is not None and sequence.shared < sequence.prompt:
                # At once, so that whoever comes with the same prompt need not wait for this request's end.
                fresh = sequence.tokens[sequence.shared : min(sequence.computed, sequence.prompt)]
                sequence.path = self._cache.commit(sequence.slot, sequence.path, fresh)

    def make_room(self, newcomer: TokenSequence, cells: int) -> list[Operation | Save]:
        """Free so many cells, if there are as many that nobody needs, besides those of sequences that are computed.
        Returns what that takes, to be done at once; the newcomer's own cells are still free.
        """
        self._cache.evict(self.cells_used + self.cells_cached + cells - newcomer.uncomputed - self._limits.cells)
        return self._cache.operations()

    def resident(self) -> tuple[list[Operation | Save], list[Save]]:
        """What has to be done to the KV cache, and after that every prefix in it that is worth saving, the last used
        first.
        """
        return self._cache.operations(), self._cache.resident()

    def restored(self, step: Step, sequence: TokenSequence, end: int) -> None:
        """The cells of the first `end` tokens of one that the step admitted are there. It is in the next step."""
        gained = end - sequence.computed
        self.tokens_restored += gained
        if sequence.admissions == 1 and sequence.cached is not None:
            sequence.cached += gained
            self.tokens_cached += gained
        step.work = [work for work in step.work if work.sequence is not sequence]
        self.computed(Step([Work(sequence, sequence.computed, gained, samples=False)]))

    def shed(self) -> bool:
        """The cache had no place for the planned step after all: free what nobody needs, or else preempt a sequence
        and admit nobody until one ends.

        Returns False, and does nothing, when only one sequence is left.
        """
        if self._cache.evict(self.cells_cached):
            return True
        if len(self._running) < 2:
            return False
        self._preempt()
        self._closed_door = True
        return True

    def _prompt_room(self, decoding: int) -> int:
        """Tokens of prompts that the next step may have."""
        room = self._limits.token_budget - decoding
        if self._prompt_share is None or not decoding:
            return room
        prompts = min(len(self._running) + len(self._waiting), self._limits.slots) - decoding
        return min(room, self._prompt_share(decoding, prompts)) if prompts else room

    def _by_turns(self, prompts: Sequence[int]) -> Sequence[TokenSequence]:
        """Those that run, the oldest first; where prompts are computed in small parts, every other time the one that
        lacks least, so that a short prompt does not wait for all of a long one.
        """
        self._shortest_first = self._prompt_share is not None and len(prompts) > 1 and not self._shortest_first
        return sorted(self._running, key=lambda each: each.uncomputed) if self._shortest_first else self._running

    def _drafts(self, decoding: Sequence[TokenSequence], propose: Propose) -> dict[int, Sequence[int]]:
        """What is guessed for whom. Nothing while there is a prompt to be computed, which fills the step."""
        if not decoding or len(decoding) < len(self._running):
            return {}
        free = self._limits.cells - self.cells_used
        room = min(self._limits.drafts, self._limits.token_budget - len(decoding), free)
        drafts = propose(decoding, room)
        return {sequence.key: draft for sequence, draft in zip(decoding, drafts, strict=True) if draft}

    def _admit(self) -> list[TokenSequence]:
        """Let sequences run as long as there is room. Returns those."""
        admitted: list[TokenSequence] = []
        # A long prompt leaves room for others, which may be short.
        most = -(-self._limits.token_budget // 2)
        if not self._waiting:
            return admitted
        uncommitted = self._limits.token_budget - sum(min(each.uncomputed, most) for each in self._running)
        while uncommitted > 0 and len(self._running) < self._limits.slots and not self._closed_door:
            sequence = next(filter(self._enter, self._waiting.candidates()), None)
            if sequence is None:
                break
            self._waiting.take(sequence)
            admitted.append(sequence)
            uncommitted -= min(sequence.uncomputed, most)
        return admitted

    def _enter(self, sequence: TokenSequence) -> bool:
        """Let the sequence run, if there is room for it."""
        match = self._cache.match(
            sequence.tokens,
            sequence.reusable,
            self._limits.least_shared,
            sequence.adapter,
        )
        if self._cache.sharing and sequence.moved is None and self._is_computing_more(sequence, match.length):
            return False
        # Leave every running sequence a few cells to grow, or the newcomer is preempted before it has said anything.
        reserve = 8 * len(self._running)
        needed = match.unpinned + len(sequence.tokens) - match.length
        if self.cells_used + needed + reserve > self._limits.cells and self._running:
            return False
        place = self._cache.enter(match)
        if place is None:
            return False
        sequence.slot, sequence.path = place
        sequence.computed = sequence.shared
        sequence.prompt = len(sequence.tokens)
        sequence.admissions += 1
        if sequence.cached is None:
            sequence.cached = sequence.computed
            self.tokens_cached += sequence.computed
        self._running.append(sequence)
        self._running.sort(key=lambda each: each.key)
        return True

    def _is_computing_more(self, newcomer: TokenSequence, known: int) -> bool:
        """Whether a running sequence is just computing more of the newcomer's prefix than is known."""
        end = known + _WORTH_WAITING
        if len(newcomer.tokens) <= end:
            return False
        prefix = newcomer.tokens[:end]
        return any(
            each.computed < end <= (each.singly_from or each.prompt)
            and each.adapter == newcomer.adapter
            and each.tokens[:end] == prefix
            for each in self._running
        )

    def _preempt(self) -> None:
        """Take its cells from the sequence that costs least: batch requests first, and of equals who has least to be
        computed again, and of those the youngest.

        Somebody is left and goes on, and what was generated is kept: so all get to their ends.
        """
        sequence = min(self._running, key=lambda each: (not each.batch, each.computed - each.shared, -each.key))
        self._vacate(sequence)
        sequence.computed = 0
        sequence.singly_from = None  # In a crowd there is no shape to keep, and one by one would take long.
        self._waiting.put_back(sequence)
        self.preemptions += 1

    def _end(self, key: int, trusted: bool) -> None:
        sequence = self._known.pop(key, None)
        if sequence is None:
            return
        if sequence.slot < 0:
            self._waiting.remove(sequence)
        else:
            self._vacate(sequence, trusted)
            self._closed_door = False

    def _vacate(self, sequence: TokenSequence, trusted: bool = True) -> None:
        assert sequence.path is not None
        self._running.remove(sequence)
        if trusted:
            rest = sequence.tokens[sequence.shared : sequence.computed]
            self._cache.leave(sequence.slot, sequence.path, rest)
        else:
            self._cache.discard(sequence.slot, sequence.path)
        sequence.slot, sequence.path = -1, None
