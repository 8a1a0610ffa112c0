"""The scheduler: who runs, what is computed in a step, what happens when cells run out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.scheduler import Limits, Scheduler, Step, TokenSequence


def sequence(key: int, length: int, singly_from: int | None = None) -> TokenSequence:
    return TokenSequence(key, list(range(length)), singly_from)


def shape(step: Step) -> list[tuple[int, int, int, bool]]:
    """(key, start, count, samples) of each piece of work."""
    return [(work.sequence.key, work.start, work.count, work.samples) for work in step.work]


def run(scheduler: Scheduler) -> Step:
    """Plan a step, say that it was computed, and append a token wherever one was sampled."""
    step = scheduler.plan()
    scheduler.computed(step)
    for work in step.work:
        if work.samples:
            scheduler.append(work.sequence.key, 0)
    return step


def test_a_prompt_is_computed_in_chunks_of_the_budget_and_samples_at_its_end() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=2, token_budget=4))
    scheduler.add(sequence(1, 10))
    assert [shape(run(scheduler)) for _ in range(4)] == [
        [(1, 0, 4, False)],
        [(1, 4, 4, False)],
        [(1, 8, 2, True)],
        [(1, 10, 1, True)],
    ]


def test_decoding_goes_on_beside_a_long_prompt() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=2, token_budget=4))
    scheduler.add(sequence(1, 2))
    run(scheduler)
    scheduler.add(sequence(2, 9))
    assert shape(run(scheduler)) == [(1, 2, 1, True), (2, 0, 3, False)]
    assert shape(run(scheduler)) == [(1, 3, 1, True), (2, 3, 3, False)]


def test_requests_beyond_the_slots_wait_and_join_when_one_leaves() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=2, token_budget=8))
    for key in (1, 2, 3):
        scheduler.add(sequence(key, 2))
    run(scheduler)
    assert (scheduler.running, scheduler.waiting) == (2, 1)
    scheduler.remove(1)
    assert [work[0] for work in shape(run(scheduler))] == [2, 3]


def test_a_removed_sequence_gives_back_slot_and_cells_at_once() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=1, token_budget=8))
    scheduler.add(sequence(1, 5))
    slot = run(scheduler).work[0].sequence.slot
    scheduler.remove(1)
    assert (scheduler.running, scheduler.cells_used, scheduler.idle) == (0, 0, True)
    assert scheduler.plan().freed == [slot]


def test_a_waiting_sequence_can_be_removed() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=1, token_budget=8))
    scheduler.add(sequence(1, 5))
    scheduler.add(sequence(2, 5))
    run(scheduler)
    scheduler.remove(2)
    assert scheduler.waiting == 0


def test_a_prompt_is_admitted_by_the_cells_it_needs_and_not_by_what_it_might_need() -> None:
    scheduler = Scheduler(Limits(cells=60, slots=4, token_budget=64))
    scheduler.add(sequence(1, 20))
    scheduler.add(sequence(2, 20))
    run(scheduler)
    assert scheduler.running == 2


def test_when_cells_run_out_the_youngest_waits_and_is_computed_again_with_its_tokens() -> None:
    scheduler = Scheduler(Limits(cells=30, slots=2, token_budget=32))
    scheduler.add(sequence(1, 10))
    scheduler.add(sequence(2, 10))
    while not scheduler.preemptions:
        run(scheduler)
    assert (scheduler.running, scheduler.waiting) == (1, 1)
    scheduler.remove(1)
    step = scheduler.plan()
    assert shape(step) == [(2, 0, 16, True)]


def test_the_line_is_first_come_first_served_even_if_a_later_request_would_fit() -> None:
    scheduler = Scheduler(Limits(cells=40, slots=4, token_budget=64))
    scheduler.add(sequence(1, 20))
    run(scheduler)
    scheduler.add(sequence(2, 30))
    scheduler.add(sequence(3, 1))
    assert [work[0] for work in shape(run(scheduler))] == [1]


def test_resumed_tokens_are_computed_one_in_a_step_after_the_prompt() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=2, token_budget=16))
    scheduler.add(sequence(1, 8, singly_from=5))
    assert [shape(run(scheduler)) for _ in range(4)] == [
        [(1, 0, 5, False)],
        [(1, 5, 1, False)],
        [(1, 6, 1, False)],
        [(1, 7, 1, True)],
    ]


def test_a_preempted_sequence_is_computed_again_like_a_prompt() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=2, token_budget=32))
    scheduler.add(sequence(1, 3))
    scheduler.add(sequence(2, 9, singly_from=4))
    run(scheduler)
    scheduler.shed()
    scheduler.remove(1)
    assert shape(scheduler.plan()) == [(2, 0, 9, True)]


def test_what_was_shed_waits_until_a_sequence_has_ended() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=2, token_budget=16))
    scheduler.add(sequence(1, 5))
    scheduler.add(sequence(2, 5))
    scheduler.plan()
    assert scheduler.shed()
    assert [work[0] for work in shape(scheduler.plan())] == [1]
    scheduler.remove(1)
    assert [work[0] for work in shape(scheduler.plan())] == [2]


def test_the_last_sequence_cannot_be_shed() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=2, token_budget=16))
    scheduler.add(sequence(1, 5))
    scheduler.plan()
    assert not scheduler.shed()
    assert scheduler.running == 1


@pytest.mark.parametrize("length", [0, 101])
def test_a_sequence_that_can_never_run_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Scheduler(Limits(cells=100, slots=1, token_budget=8)).add(sequence(1, length))


def test_a_budget_smaller_than_the_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="one token of every slot"):
        Limits(cells=100, slots=9, token_budget=8)


class Cache:
    """What llama.cpp's memory would hold: per slot, the tokens at positions 0, 1, 2, ..."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.slots: dict[int, list[int]] = {}

    def apply(self, step: Step) -> None:
        for slot in step.freed:
            self.slots.pop(slot, None)
        for work in step.work:
            cached = self.slots.setdefault(work.sequence.slot, [])
            assert len(cached) == work.start, "a hole or an overlap in the positions"
            cached += work.sequence.tokens[work.start : work.start + work.count]
        assert sum(work.count for work in step.work) <= self.limits.token_budget
        assert sum(map(len, self.slots.values())) <= self.limits.cells
        assert all(0 <= slot < self.limits.slots for slot in self.slots)


requests = st.tuples(
    st.integers(0, 30),  # arrives at this step
    st.integers(1, 20),  # prompt
    st.integers(1, 20),  # tokens to generate
    st.booleans(),  # resumes in the middle of its prompt
    st.one_of(st.none(), st.integers(0, 30)),  # is aborted at this step
)


@settings(max_examples=300, deadline=None)
@given(
    arrivals=st.lists(requests, max_size=12),
    cells=st.integers(40, 80),
    slots=st.integers(1, 5),
    extra=st.integers(0, 20),
)
def test_every_request_ends_with_all_its_tokens_computed_whatever_comes(
    arrivals: list[tuple[int, int, int, bool, int | None]], cells: int, slots: int, extra: int
) -> None:
    limits = Limits(cells, slots, token_budget=slots + extra)
    scheduler, cache = Scheduler(limits), Cache(limits)
    left = {key: wanted for key, (_, _, wanted, _, _) in enumerate(arrivals)}
    aborted: set[int] = set()
    for now in range(5000):
        for key, (arrives, length, _, resumes, aborts) in enumerate(arrivals):
            if arrives == now:
                scheduler.add(TokenSequence(key, [key] * length, length // 2 if resumes else None))
            if aborts == now and arrives <= now and left[key]:
                scheduler.remove(key)
                aborted.add(key)
        step = scheduler.plan()
        cache.apply(step)
        scheduler.computed(step)
        if not step.work and now > 30:
            break
        for work in step.work:
            key = work.sequence.key
            assert key not in aborted
            if work.samples:
                assert cache.slots[work.sequence.slot] == [key] * len(work.sequence.tokens)
                left[key] -= 1
                if left[key]:
                    scheduler.append(key, key)
                else:
                    scheduler.remove(key)
    assert scheduler.idle
    assert scheduler.cells_used == 0
    assert all(key in aborted or tokens == 0 for key, tokens in left.items())
