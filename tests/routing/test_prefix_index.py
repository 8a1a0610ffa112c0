from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.routing.prefix_index import AGE_SECONDS, PrefixIndex


def test_the_longest_common_beginning_is_found_for_each_replica() -> None:
    index = PrefixIndex()
    index.note("a", [1, 2, 3], 0.0)
    index.note("b", [1, 2, 9], 0.0)
    index.note("c", [8], 0.0)
    assert index.matches([1, 2, 3, 4], 0.0) == {"a": 3, "b": 2}
    assert index.matches([8, 2], 0.0) == {"c": 1}
    assert index.matches([5, 3], 0.0) == {}
    assert index.matches([], 0.0) == {}


def test_entries_leave_with_their_replica_and_its_place_is_used_again() -> None:
    index = PrefixIndex()
    for name in "abc":
        index.note(name, [1, 2], 0.0)
    index.remove("b")
    assert index.matches([1, 2], 0.0) == {"a": 2, "c": 2}
    index.note("d", [1], 0.0)
    assert index.matches([1, 2], 0.0) == {"a": 2, "c": 2, "d": 1}
    for name in "acd":
        index.remove(name)
    assert len(index) == 0
    assert not index._of_block


def test_beyond_the_capacity_the_oldest_is_forgotten_ends_before_beginnings() -> None:
    index = PrefixIndex()
    index.note("a", [1, 2, 3], 0.0, capacity=5)
    index.note("a", [1, 2, 4], 1.0, capacity=5)
    index.note("a", [7], 2.0, capacity=4)
    assert index.matches([1, 2, 3], 2.0) == {"a": 2}
    assert index.matches([1, 2, 4], 2.0) == {"a": 3}
    assert len(index) == 4


def test_what_nobody_used_for_long_counts_for_nothing() -> None:
    index = PrefixIndex()
    index.note("a", [1, 2, 3], 0.0)
    index.note("a", [1, 2], 100.0)
    later = AGE_SECONDS + 50
    assert index.matches([1, 2, 3], later) == {"a": 2}
    assert index.matches([1, 2, 3], AGE_SECONDS + 101) == {}
    index.note("a", [9], later)
    assert len(index) == 3, "and is forgotten bit by bit"


PROMPTS = st.lists(st.integers(0, 3), max_size=6).map(
    lambda letters: [hash(tuple(letters[: n + 1])) for n in range(len(letters))]
)


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), PROMPTS, st.booleans()), max_size=40),
    PROMPTS,
    st.integers(1, 12),
)
def test_it_agrees_with_the_plain_definition(
    events: list[tuple[str, list[int], bool]], prompt: list[int], capacity: int
) -> None:
    index = PrefixIndex()
    plain: dict[str, dict[int, None]] = {}
    for name, blocks, leaves in events:
        if leaves:
            index.remove(name)
            plain.pop(name, None)
            continue
        index.note(name, blocks, 0.0, capacity)
        known = plain.setdefault(name, {})
        for block in reversed(blocks[:capacity]):
            known.pop(block, None)
            known[block] = None
        while len(known) > capacity:
            del known[next(iter(known))]
    expected = {}
    for name, known in plain.items():
        length = next((n for n, block in enumerate(prompt) if block not in known), len(prompt))
        if length:
            expected[name] = length
    assert index.matches(prompt, 0.0) == expected
    assert len(index) == sum(map(len, plain.values()))
    assert set(index._of_block) == {block for known in plain.values() for block in known}
