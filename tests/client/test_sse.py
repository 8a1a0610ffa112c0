import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.client.sse import SseDecoder


def decode(*pieces: bytes) -> list[str]:
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_ends_at_a_blank_line(end: bytes) -> None:
    assert decode(b"data: one" + end + end + b"data:two" + end + end, b"x") == ["one", "two"]


def test_comments_and_other_fields_are_ignored() -> None:
    assert decode(b": keep-alive\n\nevent: x\nid: 3\ndata: one\n\n") == ["one"]


def test_lines_of_data_are_joined() -> None:
    assert decode(b"data: a\ndata: b\n\n") == ["a\nb"]


def test_separators_that_are_no_line_ends_stay_in_the_data() -> None:
    text = json.dumps("a\u2028b\x85c\x0cd", ensure_ascii=False)
    assert decode(f"data: {text}\n\n".encode()) == [text]


@given(st.data(), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_pieces_may_be_cut_anywhere(data: st.DataObject, end: bytes) -> None:
    whole = "data: Grüße, 世界\n\ndata: [DONE]\n\n: x\n\n".encode().replace(b"\n", end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert decode(*pieces, b"x") == ["Grüße, 世界", "[DONE]"]
