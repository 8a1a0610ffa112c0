"""Where a draft model has what: checked against a cache that knows the token of every cell."""

from hypothesis import given, settings
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.draft_slots import DraftSlots, Place
from xinfer_runtime.engines.llama_cpp.token_sequence import TokenSequence


def computed(slots: DraftSlots, sequence: TokenSequence, more: int = 0) -> Place:
    """Place the sequence, alone, and compute what it lacks."""
    place = slots.place(sequence, more, [sequence])
    assert place is not None
    place.tokens += sequence.tokens[len(place.tokens) :]
    place.agreed = len(place.tokens)
    return place


def test_the_next_turn_of_a_conversation_finds_the_place_of_the_last() -> None:
    slots = DraftSlots(slots=3, cells=100)
    first = TokenSequence(0, [1, 2, 3, 4])
    used = computed(slots, first).slot
    computed(slots, TokenSequence(1, [9, 9, 9]))
    del first
    place = slots.place(TokenSequence(2, [1, 2, 3, 4, 5, 6]), 2, [])
    assert place is not None
    assert (place.slot, place.tokens) == (used, [1, 2, 3, 4])


def test_a_wrong_guess_is_taken_back_and_the_last_token_computed_again() -> None:
    slots = DraftSlots(slots=1, cells=100)
    sequence = TokenSequence(0, [1, 2, 3])
    place = computed(slots, sequence)
    place.tokens += [7, 8]
    sequence.tokens += [7, 5]
    assert slots.place(sequence, 4, [sequence]) is place
    assert place.tokens == [1, 2, 3, 7]
    assert slots.freed == [(place.slot, 4)]
    sequence.tokens.pop()
    slots.place(sequence, 4, [sequence])
    assert place.tokens == [1, 2, 3]


def test_where_cells_run_out_those_that_are_not_beside_it_give_way_and_then_nobody() -> None:
    slots = DraftSlots(slots=3, cells=10)
    some, others, more = (TokenSequence(key, [key] * 4) for key in range(3))
    computed(slots, some)
    computed(slots, others)
    assert slots.place(more, 4, [some, others, more]) is None
    assert slots.place(more, 0, [others, more]) is not None
    assert len(slots.freed) == 1


guessed = st.tuples(
    st.integers(0, 5),  # which sequence
    st.integers(1, 3),  # tokens that came since
    st.integers(0, 4),  # tokens that are guessed now
)


@settings(max_examples=300, deadline=None)
@given(
    slots=st.integers(1, 4),
    cells=st.integers(5, 60),
    calls=st.lists(st.lists(guessed, max_size=4, unique_by=lambda each: each[0]), max_size=20),
    ends=st.sets(st.integers(0, 19)),
)
def test_a_place_has_the_beginning_of_its_sequence_and_no_cell_too_many(
    slots: int, cells: int, calls: list[list[tuple[int, int, int]]], ends: set[int]
) -> None:
    """Sequences grow by tokens of few kinds, are guessed for, and end."""
    state = DraftSlots(slots, cells)
    cache: dict[int, list[int]] = {slot: [] for slot in range(slots)}
    sequences: dict[int, TokenSequence] = {}
    for now, call in enumerate(calls):
        if now in ends:
            sequences.clear()
        for key, grows, _ in call:
            sequence = sequences.setdefault(key, TokenSequence(key, [key % 2]))
            sequence.tokens += [(key + index) % 3 for index in range(grows)]
        beside = [sequences[key] for key, _, _ in call][:slots]
        for sequence, (_, _, guesses) in zip(beside, call, strict=False):
            place = state.place(sequence, guesses, beside)
            for slot, start in state.freed:
                del cache[slot][start:]
            state.freed.clear()
            assert sum(map(len, cache.values())) <= cells
            if place is None:
                continue
            assert cache[place.slot] == place.tokens == sequence.tokens[: len(place.tokens)]
            assert len(place.tokens) < len(sequence.tokens)
            added = [*sequence.tokens[len(place.tokens) :], *([2] * guesses)]
            place.tokens += added
            place.agreed = len(sequence.tokens)
            cache[place.slot] += added
            assert sum(map(len, cache.values())) <= cells
