"""A split KV cache: what a stream holds, and where the running sequences lie."""

from hypothesis import given, settings
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.cell_operations import Merge, Remove, Share
from xinfer_runtime.engines.llama_cpp.scheduler import Limits, Scheduler
from xinfer_runtime.engines.llama_cpp.streams import Copy, StreamOperation, Streams
from xinfer_runtime.engines.llama_cpp.token_sequence import Step, TokenSequence


def test_a_shared_prefix_is_copied_and_what_follows_it_is_not_kept() -> None:
    assert Streams(4).change([Share(1, 2, 30)]) == [Copy(1, 2, 30)]


def test_cells_that_are_worth_the_same_stay_where_they_are() -> None:
    assert Streams(4).change([Merge(1, 2, 0, 30)]) == []


def test_running_sequences_that_lie_side_by_side_stay() -> None:
    streams = Streams(4)
    streams.compact([0, 1, 2])
    assert streams.compact([1, 0]) == []


def test_the_last_running_sequence_moves_into_a_gap() -> None:
    streams = Streams(4)
    streams.compact([0, 1, 2])
    streams.change([Remove(0, 0)])
    assert streams.compact([1, 2]) == [Copy(2, 0), Remove(2, 0)]
    assert (streams.of(2), streams.of(0)) == (0, 2)


def test_what_an_ended_request_left_in_the_gap_is_kept() -> None:
    streams = Streams(3)
    streams.compact([0, 1, 2])
    assert streams.compact([1, 2]) == [Copy(0, 3), Copy(2, 0), Remove(2, 0)]
    assert (streams.of(0), streams.of(2)) == (3, 0)
    assert streams.compact([0, 1, 2]) == [Copy(3, 2), Remove(3, 0)]


def test_a_newcomer_without_cells_takes_a_gap_without_a_copy() -> None:
    streams = Streams(4)
    streams.compact([0])
    streams.change([Remove(0, 0)])
    assert streams.compact([3]) == []
    assert streams.of(3) == 0


class Cache:
    """What llama.cpp's split memory would hold: a stream holds tokens."""

    def __init__(self, sequences: int, length: int) -> None:
        self.streams = Streams(sequences)
        self.length = length
        self.held: list[list[int]] = [[] for _ in range(self.streams.count)]

    def _carry_out(self, operations: list[StreamOperation]) -> None:
        for operation in operations:
            if isinstance(operation, Copy):
                assert operation.source != operation.target
                self.held[operation.target] = self.held[operation.source][: operation.length]
            elif operation.end < 0:
                del self.held[operation.sequence][operation.start :]
            else:
                assert operation.end >= len(self.held[operation.sequence]), "a hole"

    def apply(self, step: Step, running: list[int]) -> None:
        self._carry_out(self.streams.change(step.operations))
        self._carry_out(self.streams.compact(running))
        assert {self.streams.of(slot) for slot in running} == set(range(len(running)))
        for work in step.work:
            tokens = work.sequence.tokens
            held = self.held[self.streams.of(work.sequence.slot)]
            assert held == tokens[: work.start]
            held += tokens[work.start : work.start + work.count]
            assert len(held) <= self.length


@settings(max_examples=300, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(
            st.integers(0, 30),  # arrives at this step
            st.integers(1, 20),  # prompt
            st.integers(1, 20),  # tokens to generate
            st.one_of(st.none(), st.integers(0, 30)),  # ends at this step before its time
            st.booleans(),  # ends so by a failure
            st.integers(0, 3),  # which conversation it belongs to
            st.integers(0, 20),  # how much of that it begins with
        ),
        max_size=12,
    ),
    slots=st.integers(2, 5),
    least_shared=st.integers(1, 5),
)
def test_every_sequence_finds_its_tokens_in_its_stream_whatever_comes(
    arrivals: list[tuple[int, int, int, int | None, bool, int, int]], slots: int, least_shared: int
) -> None:
    length = 40
    limits = Limits(slots * length, slots, slots + 10, slots * length, slots, least_shared)
    scheduler, cache = Scheduler(limits), Cache(slots, length)
    left = {key: arrival[2] for key, arrival in enumerate(arrivals)}
    for now in range(5000):
        for key, (arrives, prompt, _, ends, fails, number, common) in enumerate(arrivals):
            if arrives == now:
                scheduler.add(TokenSequence(key, [7, *[number] * common, *range(100, 100 + prompt)][:prompt]))
            if ends == now and arrives <= now and left[key]:
                (scheduler.discard if fails else scheduler.remove)(key)
                left[key] = 0
        step = scheduler.plan()
        if not step.work and now > 30:
            break
        cache.apply(step, scheduler.running_slots)
        scheduler.computed(step)
        for work in step.work:
            key = work.sequence.key
            if work.samples:
                left[key] -= 1
                if left[key]:
                    scheduler.append(key, 1 + left[key] % 3)
                else:
                    scheduler.remove(key)
    assert scheduler.idle
    assert scheduler.preemptions == 0
    assert not any(left.values())
