"""Stop strings are found across chunks, never shown, and hold back no more than they must."""

from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.stop import StopMatcher


def feed(stops: list[str], chunks: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = "".join(map(matcher.push, chunks))
    return shown + matcher.finish(), matcher.stopped


def test_a_stop_string_across_chunks_is_found_and_not_shown() -> None:
    assert feed(["END"], ["one E", "N", "D two"]) == ("one ", True)


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    matcher = StopMatcher(["END", "\n\n"])
    assert [matcher.push(chunk) for chunk in ("abE", "Nx", "y\n", "z")] == ["ab", "ENx", "y", "\nz"]


def test_a_false_beginning_that_contains_a_true_one_is_not_missed() -> None:
    assert feed(["aab"], ["a", "a", "a", "b"]) == ("a", True)


def test_the_stop_string_that_ends_first_counts() -> None:
    assert feed(["three", "two"], ["one two three"]) == ("one ", True)


def test_text_held_back_is_shown_when_the_output_ends() -> None:
    assert feed(["END"], ["the EN"]) == ("the EN", False)


def test_an_empty_stop_string_stops_nothing() -> None:
    assert feed([""], ["abc"]) == ("abc", False)


@given(
    st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.text("abc", max_size=3), max_size=12),
)
def test_chunks_make_no_difference(stops: list[str], chunks: list[str]) -> None:
    text = "".join(chunks)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text[: min(ends)[1]] if ends else text
    assert feed(stops, chunks) == (expected, bool(ends))
