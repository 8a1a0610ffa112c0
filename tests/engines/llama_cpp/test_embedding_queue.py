"""Which inputs go into a pass together, without a model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.embedding_queue import EmbeddingQueue, Job


def job(key: int, *lengths: int) -> Job:
    return Job(key, [[key] * length for length in lengths])


def keys(queue: EmbeddingQueue) -> list[int]:
    return [item.job.key for item in queue.next_pass()]


def test_inputs_of_all_requests_fill_a_pass() -> None:
    queue = EmbeddingQueue(100, 64)
    for key in range(3):
        queue.add(job(key, 10, 10))
    assert keys(queue) == [0, 1, 2, 0, 1, 2]
    assert queue.next_pass() == []


def test_a_request_with_many_inputs_does_not_hold_up_one_with_a_single_input() -> None:
    queue = EmbeddingQueue(20, 64)
    queue.add(job(0, *[10] * 1000))
    assert keys(queue) == [0, 0]
    queue.add(job(1, 10))
    assert 1 in keys(queue)


def test_an_input_longer_than_the_budget_gets_a_pass_of_its_own() -> None:
    queue = EmbeddingQueue(20, 64)
    queue.add(job(0, 5))
    queue.add(job(1, 500))
    queue.add(job(2, 5))
    assert keys(queue) == [0, 2]
    assert keys(queue) == [1]


def test_who_did_not_fit_is_the_next_one() -> None:
    queue = EmbeddingQueue(20, 64)
    queue.add(job(0, *[15] * 100))
    queue.add(job(1, 15))
    assert keys(queue) == [0]
    assert keys(queue) == [1]


def test_a_pass_has_at_most_so_many_inputs() -> None:
    queue = EmbeddingQueue(1000, 4)
    queue.add(job(0, *[1] * 10))
    assert [len(queue.next_pass()) for _ in range(4)] == [4, 4, 2, 0]


def test_a_removed_request_leaves_nothing() -> None:
    queue = EmbeddingQueue(10, 64)
    queue.add(job(0, 5, 5, 5))
    queue.add(job(1, 5))
    queue.remove(0)
    assert keys(queue) == [1]
    assert len(queue) == 0


def test_a_job_is_done_when_every_input_has_its_vector() -> None:
    one = job(0, 5, 5)
    one.vectors[1] = np.zeros(2, dtype=np.float32)
    assert not one.done
    one.vectors[0] = np.zeros(2, dtype=np.float32)
    assert one.done
    assert one.tokens == 10


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), max_size=8),
    st.integers(1, 30),
    st.integers(1, 6),
)
def test_every_input_is_computed_once_and_no_pass_is_too_large(
    lengths: list[list[int]], budget: int, sequences: int
) -> None:
    queue = EmbeddingQueue(budget, sequences)
    for key, each in enumerate(lengths):
        queue.add(job(key, *each))
    seen: list[tuple[int, int]] = []
    while items := queue.next_pass():
        tokens = sum(len(item.tokens) for item in items)
        assert len(items) <= sequences
        assert tokens <= budget or len(items) == 1
        seen += [(item.job.key, item.index) for item in items]
    assert sorted(seen) == [(key, index) for key, each in enumerate(lengths) for index in range(len(each))]
    assert len(queue) == 0


@pytest.mark.parametrize("others", [1, 5])
def test_nobody_waits_for_more_than_a_turn_of_the_others(others: int) -> None:
    queue = EmbeddingQueue(10, 64)
    for key in range(others):
        queue.add(job(key, *[10] * 50))
    queue.next_pass()
    queue.add(job(99, 10))
    passes = 0
    while 99 not in keys(queue):
        passes += 1
    assert passes <= others
