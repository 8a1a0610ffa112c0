"""What is looked up in a sequence's own tokens."""

from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.prompt_lookup import PromptLookup


def test_a_run_that_came_before_goes_on_as_it_did() -> None:
    assert PromptLookup().propose([1, 2, 3, 4, 5, 6, 9, 1, 2], 3) == [3, 4, 5]


def test_the_longer_run_decides_and_of_equals_the_last() -> None:
    tokens = [7, 7, 3, 4, 10, 8, 8, 3, 4, 11, 3, 4, 12, 7, 7, 3, 4]
    assert PromptLookup().propose(tokens, 1) == [10]
    assert PromptLookup().propose([*tokens[5:13], 3, 4], 1) == [12]


def test_what_goes_round_in_circles_is_taken_to_go_on() -> None:
    assert PromptLookup().propose([5, 1, 2, 1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]


def test_what_never_came_before_is_not_guessed() -> None:
    assert PromptLookup().propose(list(range(100)), 4) == []


def test_a_long_prompt_is_taken_in_over_several_calls() -> None:
    lookup, tokens = PromptLookup(), [1, 2, 3, *range(10, 20000), 1, 2]
    assert lookup.propose(tokens, 1) == []
    assert lookup.propose(tokens, 1) == []
    assert lookup.propose(tokens, 1) == [3]


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 8))
def test_token_by_token_finds_what_one_call_finds(tokens: list[int], most: int) -> None:
    lookup = PromptLookup()
    for end in range(len(tokens)):
        assert len(lookup.propose(tokens[:end], most)) in (0, most)
    assert lookup.propose(tokens, most) == PromptLookup().propose(tokens, most)
