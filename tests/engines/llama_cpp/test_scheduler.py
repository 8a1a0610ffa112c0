"""The scheduler: who runs, what is computed in a step, what happens when cells run out."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.cell_operations import Merge, Remove
from xinfer_runtime.engines.llama_cpp.scheduler import Limits, Scheduler
from xinfer_runtime.engines.llama_cpp.token_sequence import Step, TokenSequence


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
    assert scheduler.plan().operations == [Remove(slot, 0)]


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


def test_when_cells_run_out_one_waits_and_is_computed_again_with_its_tokens() -> None:
    scheduler = Scheduler(Limits(cells=30, slots=2, token_budget=32))
    scheduler.add(sequence(1, 10))
    scheduler.add(sequence(2, 10))
    while not scheduler.preemptions:
        run(scheduler)
    assert (scheduler.running, scheduler.waiting) == (1, 1)
    scheduler.remove(1)
    step = scheduler.plan()
    assert shape(step) == [(2, 0, 16, True)]


def test_a_request_that_does_not_fit_yet_lets_some_others_pass_and_then_no_more() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=4, token_budget=64))
    scheduler.add(sequence(1, 20))
    run(scheduler)
    scheduler.add(sequence(2, 90))
    for key in range(3, 30):
        scheduler.add(sequence(key, 1))
    passed: set[int] = set()
    for _ in range(40):
        for work in run(scheduler).work:
            if work.sequence.key > 2:
                passed.add(work.sequence.key)
                scheduler.remove(work.sequence.key)
    assert passed == set(range(3, 19))
    scheduler.remove(1)
    assert (2, 0, 63, False) in shape(run(scheduler))


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
    scheduler.add(sequence(1, 12))
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
    """What llama.cpp's unified memory would hold: cells, each of some sequences, with all tokens up to its own."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.cells: list[tuple[set[int], tuple[tuple[str, int], ...]]] = []

    def of(self, sequence: int) -> list[tuple[tuple[str, int], ...]]:
        return sorted((tokens for owners, tokens in self.cells if sequence in owners), key=len)

    def apply(self, step: Step) -> None:
        for operation in step.operations:
            if isinstance(operation, Remove):
                self._take(operation.sequence, operation.start, operation.end)
                continue
            start = operation.start if isinstance(operation, Merge) else 0
            assert operation.source != operation.target
            if isinstance(operation, Merge):
                self._take(operation.target, start, operation.end)
            shared = [
                owners
                for owners, tokens in self.cells
                if operation.source in owners and start < len(tokens) <= operation.end
            ]
            assert len(shared) == operation.end - start, "the source does not have what is shared"
            for owners in shared:
                assert operation.target not in owners
                owners.add(operation.target)
        self.cells = [cell for cell in self.cells if cell[0]]
        for work in step.work:
            # What a cell holds comes from its adapter as well as from the tokens.
            tokens = tuple((work.sequence.adapter, token) for token in work.sequence.tokens)
            expected = [tokens[: n + 1] for n in range(work.start)]
            assert self.of(work.sequence.slot) == expected, "a hole, an overlap, or another's tokens"
            ends = range(work.start + 1, work.start + work.count + 1)
            self.cells += [({work.sequence.slot}, tokens[:end]) for end in ends]
        assert sum(work.count for work in step.work) <= self.limits.token_budget
        assert len(self.cells) <= self.limits.cells
        sequences = max(self.limits.slots, self.limits.kv_sequences)
        assert all(0 <= sequence < sequences for owners, _ in self.cells for sequence in owners)

    def _take(self, sequence: int, start: int, end: int) -> None:
        for owners, tokens in self.cells:
            if start < len(tokens) and (end < 0 or len(tokens) <= end):
                owners.discard(sequence)


requests = st.tuples(
    st.integers(0, 30),  # arrives at this step
    st.integers(1, 20),  # prompt
    st.integers(1, 20),  # tokens to generate
    st.booleans(),  # resumes in the middle of its prompt
    st.one_of(st.none(), st.integers(0, 30)),  # ends at this step before its time
    st.booleans(),  # ends so by a failure
    st.integers(0, 3),  # which conversation it belongs to
    st.integers(0, 20),  # how much of that it begins with
    st.sampled_from(["", "", "a", "b"]),  # its adapter
)


def conversation(number: int, common: int, length: int) -> list[int]:
    """Tokens of which the first `common` are those of others with the same number. All begin alike."""
    return [7, 7, 7, *[number] * common, *range(100, 100 + length)][:length]


@settings(max_examples=400, deadline=None)
@given(
    arrivals=st.lists(requests, max_size=12),
    cells=st.integers(40, 80),
    slots=st.integers(1, 5),
    extra=st.integers(0, 20),
    retained=st.sampled_from([None, 0, 15, 80]),
    more_sequences=st.integers(0, 6),
    whole_chunks=st.booleans(),
    prompts_apart=st.booleans(),
    patience=st.integers(0, 2),
    prompt_share=st.one_of(st.none(), st.functions(like=lambda decoding, prompts: 0, returns=st.integers(1, 8))),
)
def test_every_request_ends_with_all_its_tokens_computed_whatever_comes(
    arrivals: list[tuple[int, int, int, bool, int | None, bool, int, int, str]],
    cells: int,
    slots: int,
    extra: int,
    retained: int | None,
    more_sequences: int,
    whole_chunks: bool,
    prompts_apart: bool,
    patience: int,
    prompt_share: Callable[[int, int], int] | None,
) -> None:
    limits = Limits(
        cells,
        slots,
        slots + extra,
        retained,
        slots + more_sequences,
        whole_chunks=whole_chunks,
        prompts_apart=prompts_apart,
        patience=patience,
    )
    scheduler, cache = Scheduler(limits, prompt_share), Cache(limits)
    left = {key: arrival[2] for key, arrival in enumerate(arrivals)}
    gone: set[int] = set()
    for now in range(5000):
        for key, (arrives, length, _, resumes, ends, fails, number, common, adapter) in enumerate(arrivals):
            if arrives == now:
                tokens = conversation(number, common, length)
                scheduler.add(TokenSequence(key, tokens, max(1, length // 2) if resumes else None, adapter))
            if ends == now and arrives <= now and left[key]:
                (scheduler.discard if fails else scheduler.remove)(key)
                gone.add(key)
        step = scheduler.plan()
        cache.apply(step)
        scheduler.computed(step)
        if not step.work and now > 30:
            break
        for work in step.work:
            key = work.sequence.key
            assert key not in gone
            if work.samples:
                left[key] -= 1
                if left[key]:
                    scheduler.append(key, 1 + left[key] % 3)
                else:
                    scheduler.remove(key)
        assert scheduler.cells_cached <= (retained or 0)
    assert scheduler.idle
    assert scheduler.cells_used == 0
    assert all(key in gone or tokens == 0 for key, tokens in left.items())
    cache.apply(scheduler.plan())
    assert len(cache.cells) == scheduler.cells_cached


def sharing(slots: int = 4, cells: int = 1000, retained: int = 1000, token_budget: int = 64) -> Scheduler:
    return Scheduler(Limits(cells, slots, token_budget, retained, 2 * slots))


def test_a_request_computes_only_what_no_earlier_one_did() -> None:
    scheduler = sharing()
    scheduler.add(sequence(1, 40))
    run(scheduler)
    scheduler.remove(1)
    scheduler.add(TokenSequence(2, [*range(30), 99, 98]))
    assert shape(run(scheduler)) == [(2, 30, 2, True)]
    assert scheduler.tokens_cached == 30


def test_what_was_computed_with_an_adapter_is_of_no_use_without_it() -> None:
    scheduler = sharing()
    for key, adapter in enumerate(["", "a", "b", "a", ""]):
        scheduler.add(TokenSequence(key, list(range(40)), adapter=adapter))
        run(scheduler)
        scheduler.remove(key)
    assert scheduler.tokens_cached == 2 * 39


def test_a_request_does_not_wait_for_a_prompt_that_another_adapter_computes() -> None:
    scheduler = sharing(token_budget=128)
    scheduler.add(TokenSequence(1, list(range(60))))
    scheduler.add(TokenSequence(2, list(range(60)), adapter="a"))
    assert shape(scheduler.plan()) == [(1, 0, 60, True), (2, 0, 60, True)]


def test_the_same_prompt_again_computes_its_last_token() -> None:
    scheduler = sharing()
    scheduler.add(sequence(1, 40))
    run(scheduler)
    scheduler.add(sequence(2, 40))
    assert shape(scheduler.plan()) == [(1, 40, 1, True), (2, 39, 1, True)]


def test_the_next_turn_of_a_conversation_goes_on_after_the_answer() -> None:
    scheduler = sharing()
    first = sequence(1, 20)
    scheduler.add(first)
    for _ in range(10):
        run(scheduler)
    scheduler.remove(1)
    scheduler.add(TokenSequence(2, [*first.tokens, 77, 78]))
    assert shape(scheduler.plan()) == [(2, 29, 3, True)]


def test_a_prompt_common_to_requests_that_come_together_is_computed_once() -> None:
    scheduler = sharing(slots=40, cells=4000, retained=4000)
    for key in range(32):
        scheduler.add(TokenSequence(key, [*range(1000), 2000 + key]))
    computed = 0
    while any(len(each.tokens) < 1002 for each in scheduler._known.values()):
        computed += sum(work.count for work in run(scheduler).work if work.start < 1001)
    assert 1000 + 32 <= computed <= 1000 + 32 + 64
    assert scheduler.cells_used < 1000 + 100


def test_the_least_recently_used_goes_first_and_before_anybody_is_preempted() -> None:
    scheduler = sharing(cells=100)
    for key in (1, 2, 1000):
        scheduler.add(TokenSequence(key, list(range(key, key + 30))))
        run(scheduler)
        scheduler.remove(key)
    scheduler.add(TokenSequence(2000, list(range(2000, 2050))))
    run(scheduler)
    assert scheduler.preemptions == 0
    assert [scheduler._cache.match(list(range(key, key + 30)), 30).length for key in (1, 2, 1000)] == [0, 20, 30]


def test_what_a_failed_request_computed_is_not_used_again() -> None:
    scheduler = sharing()
    scheduler.add(sequence(1, 40))
    run(scheduler)
    scheduler.add(sequence(2, 50))
    run(scheduler)
    scheduler.discard(2)
    assert shape(run(scheduler)) == [(1, 41, 1, True)]
    scheduler.add(sequence(3, 40))
    assert shape(run(scheduler))[1:] == [(3, 0, 40, True)]


def test_tokens_to_be_computed_singly_are_not_taken_from_others() -> None:
    scheduler = sharing()
    scheduler.add(sequence(1, 20))
    run(scheduler)
    scheduler.remove(1)
    scheduler.add(sequence(2, 20, singly_from=15))
    assert shape(scheduler.plan()) == [(2, 15, 1, False)]


def test_without_a_prefix_cache_nothing_is_kept() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=2, token_budget=64))
    for key in (1, 2):
        scheduler.add(sequence(key, 20))
        assert shape(run(scheduler)) == [(key, 0, 20, True)]
        scheduler.remove(key)
    assert scheduler.cells_cached == 0


def test_with_whole_chunks_only_the_oldest_prompt_is_divided() -> None:
    scheduler = Scheduler(Limits(cells=200, slots=4, token_budget=16, whole_chunks=True))
    for key, length in ((1, 20), (2, 10), (3, 4)):
        scheduler.add(sequence(key, length))
    assert shape(run(scheduler)) == [(1, 0, 16, False)]
    assert shape(run(scheduler)) == [(1, 16, 4, True), (2, 0, 10, True)]
    assert shape(run(scheduler)) == [(1, 20, 1, True), (2, 10, 1, True), (3, 0, 4, True)]


def test_prompts_apart_leave_their_last_token_to_the_step_in_which_others_decode() -> None:
    scheduler = Scheduler(Limits(cells=200, slots=4, token_budget=16, prompts_apart=True))
    for key, length in ((1, 20), (2, 4), (3, 1)):
        scheduler.add(sequence(key, length))
    assert shape(run(scheduler)) == [(1, 0, 15, False), (3, 0, 1, True)]
    assert shape(run(scheduler)) == [(1, 15, 4, False), (2, 0, 3, False), (3, 1, 1, True)]
    assert shape(run(scheduler)) == [(1, 19, 1, True), (2, 3, 1, True), (3, 2, 1, True)]


def test_with_patience_prompts_wait_for_each_other() -> None:
    scheduler = Scheduler(Limits(cells=2000, slots=9, token_budget=64, patience=2))
    for key in range(6):
        scheduler.add(sequence(key, 3))
    run(scheduler)
    scheduler.add(sequence(7, 10))
    assert [len(run(scheduler).work) for _ in range(2)] == [6, 6]
    scheduler.add(sequence(8, 10))
    assert len(run(scheduler).work) == 6
    assert shape(run(scheduler))[6:] == [(7, 0, 10, True), (8, 0, 10, True)]


def test_prompts_that_fill_half_of_a_step_wait_for_no_more() -> None:
    scheduler = Scheduler(Limits(cells=2000, slots=9, token_budget=64, patience=1))
    for key in range(6):
        scheduler.add(sequence(key, 3))
    run(scheduler)
    scheduler.add(sequence(7, 32))
    assert shape(run(scheduler))[6:] == [(7, 0, 32, True)]


def test_a_prompt_waits_for_nobody_while_nothing_decodes() -> None:
    scheduler = Scheduler(Limits(cells=100, slots=2, token_budget=64, patience=1))
    scheduler.add(sequence(1, 10))
    assert shape(run(scheduler)) == [(1, 0, 10, True)]


def test_batch_requests_wait_for_interactive_ones_and_are_preempted_before_them() -> None:
    scheduler = Scheduler(Limits(cells=60, slots=2, token_budget=64))
    scheduler.add(TokenSequence(1, [1] * 10, batch=True))
    scheduler.add(TokenSequence(2, [2] * 10, batch=True))
    scheduler.add(sequence(3, 30))
    assert [work[0] for work in shape(run(scheduler))] == [1, 3]
    scheduler.shed()
    assert [work[0] for work in shape(run(scheduler))] == [3]


def test_while_some_decode_a_step_has_as_many_tokens_of_prompts_as_it_is_told() -> None:
    asked: list[tuple[int, int]] = []

    def share(decoding: int, prompts: int) -> int:
        asked.append((decoding, prompts))
        return 15 * prompts

    scheduler = Scheduler(Limits(cells=2000, slots=9, token_budget=64), share)
    scheduler.add(sequence(1, 40))
    assert shape(run(scheduler)) == [(1, 0, 40, True)]
    assert shape(run(scheduler)) == [(1, 40, 1, True)]
    assert asked == []
    scheduler.add(sequence(2, 40))
    assert shape(run(scheduler)) == [(1, 41, 1, True), (2, 0, 15, False)]
    for key in (3, 4, 5):
        scheduler.add(sequence(key, 30))
    assert shape(run(scheduler)) == [(1, 42, 1, True), (2, 15, 25, True), (3, 0, 30, True), (4, 0, 5, False)]
    assert asked == [(1, 1), (1, 4)]


def test_a_short_prompt_does_not_wait_for_all_of_a_long_one() -> None:
    scheduler = Scheduler(Limits(cells=2000, slots=9, token_budget=64), lambda decoding, prompts: 16)
    scheduler.add(sequence(1, 4))
    run(scheduler)
    scheduler.add(sequence(2, 1000))
    run(scheduler)
    scheduler.add(sequence(3, 30))
    computed: dict[int, int] = {2: 0, 3: 0}
    for _ in range(4):
        for key, _, count, _ in shape(run(scheduler))[1:]:
            computed[key] += count
    assert computed == {2: 34, 3: 31}


def test_prompts_that_cannot_be_let_in_yet_are_not_counted() -> None:
    asked: list[tuple[int, int]] = []
    scheduler = Scheduler(
        Limits(cells=2000, slots=2, token_budget=64), lambda decoding, prompts: asked.append((decoding, prompts)) or 8
    )
    for key in range(5):
        scheduler.add(sequence(key, 30))
        run(scheduler)
    assert asked == [(1, 1)] * 4
