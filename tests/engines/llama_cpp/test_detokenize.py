"""Token bytes become text without a character ever being broken."""

from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.detokenize import Detokenizer


@given(st.text(), st.data())
def test_any_text_comes_out_whole_however_its_bytes_are_cut(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    detokenizer = Detokenizer()
    parts: list[str] = []
    while raw:
        size = data.draw(st.integers(1, 3))
        parts.append(detokenizer.push(raw[:size]))
        raw = raw[size:]
    assert "".join(parts) == text
    assert detokenizer.finish() == ""


def test_an_unfinished_character_waits_for_its_last_byte() -> None:
    detokenizer = Detokenizer()
    assert [detokenizer.push(bytes([byte])) for byte in "😀".encode()] == ["", "", "", "😀"]


def test_an_unfinished_character_at_the_end_is_one_replacement() -> None:
    detokenizer = Detokenizer()
    detokenizer.push("好😀".encode()[:-1])
    assert detokenizer.finish() == "\N{REPLACEMENT CHARACTER}"


@given(st.lists(st.binary(max_size=4)))
def test_bytes_that_are_no_utf8_come_out_as_python_replaces_them(pieces: list[bytes]) -> None:
    detokenizer = Detokenizer()
    text = "".join(map(detokenizer.push, pieces)) + detokenizer.finish()
    assert text == b"".join(pieces).decode(errors="replace")
