from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.messages import Delta, FinishReason, ToolCall, Usage
from xinfer_runtime.routing.merge import merge


@given(st.lists(st.tuples(st.text(max_size=5), st.lists(st.integers(0, 9), max_size=3)), min_size=1, max_size=20))
def test_nothing_is_lost_repeated_or_reordered(parts: list[tuple[str, list[int]]]) -> None:
    merged = merge([Delta("wire", text, tuple(tokens)) for text, tokens in parts], "request")
    assert merged.id == "request"
    assert merged.text == "".join(text for text, _ in parts)
    assert list(merged.token_ids) == [token for _, tokens in parts for token in tokens]


def test_the_end_of_the_last_delta_is_the_end_of_the_merged_one() -> None:
    call = ToolCall(id="1", name="f", arguments="{}")
    end = Delta("a", "", (), FinishReason.STOP, Usage(3, 1), stop_string=".")
    merged = merge([Delta("a", "x", (1,), tool_calls=(call,)), end], "a")
    assert merged == Delta("a", "x", (1,), FinishReason.STOP, Usage(3, 1), (call,), stop_string=".")


def test_the_newest_state_of_mirostat_is_kept() -> None:
    deltas = [Delta("a", "x", (1,), mirostat_mu=3.0), Delta("a", "y", (2,), mirostat_mu=2.5), Delta("a", "", ())]
    assert merge(deltas, "a").mirostat_mu == 2.5
