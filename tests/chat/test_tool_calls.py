"""Tool calls in streamed output."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.chat.tool_calls import ToolCallParser, parse_call
from xinfer_runtime.messages import ToolCall

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "<x>"}}\n</tool_call>'


def feed(chunks: list[str]) -> tuple[str, list[ToolCall]]:
    parser = ToolCallParser()
    text, calls = "", []
    for chunk in chunks:
        shown, found = parser.push(chunk)
        text += shown
        calls += found
    shown, found = parser.finish()
    return text + shown, calls + list(found)


def named(calls: list[ToolCall]) -> list[tuple[str, object]]:
    return [(call.name, json.loads(call.arguments)) for call in calls]


@given(st.data())
def test_chunks_make_no_difference(data: st.DataObject) -> None:
    output = f"First.\n{CALL}\n{CALL}\n then < and <tool and <tool_call>broken</tool_call>"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(output) - 1), max_size=20)))
    chunks = [output[a:b] for a, b in zip([0, *cuts], [*cuts, len(output)], strict=True)]
    text, calls = feed(chunks)
    assert text == "First.\n then < and <tool and <tool_call>broken</tool_call>"
    assert named(calls) == [("add", {"a": 1, "b": "<x>"})] * 2


def test_text_streams_until_a_call_may_begin() -> None:
    parser = ToolCallParser()
    shown = [parser.push(chunk)[0] for chunk in ("Let me", " see", ". ", "<", "b> ", "<tool", "_call>")]
    assert shown == ["Let me", " see", ".", "", " <b>", "", ""]


def test_a_call_comes_as_soon_as_its_block_ends() -> None:
    parser = ToolCallParser()
    assert parser.push(CALL[:-1])[1] == ()
    assert len(parser.push(">")[1]) == 1


def test_every_call_has_an_id_of_its_own() -> None:
    _, calls = feed([CALL, CALL])
    assert calls[0].id != calls[1].id
    assert calls[0].id.startswith("call_")


def test_a_last_block_without_its_end_is_a_call_if_it_is_complete() -> None:
    assert named(feed([CALL.removesuffix("</tool_call>")])[1]) == [("add", {"a": 1, "b": "<x>"})]


def test_a_last_block_that_is_cut_off_stays_text() -> None:
    assert feed(['<tool_call>{"name": "ad']) == ('<tool_call>{"name": "ad', [])


def test_white_space_at_the_end_of_plain_text_is_kept() -> None:
    assert feed(["the end", "\n"]) == ("the end\n", [])


@pytest.mark.parametrize(
    ("block", "arguments"),
    [
        ('{"name": "f"}', {}),
        ('{"name": "f", "parameters": {"x": 1}}', {"x": 1}),
        ('{"name": "f", "arguments": "{\\"x\\": 1}"}', {"x": 1}),
    ],
)
def test_the_variants_that_models_write_are_calls(block: str, arguments: object) -> None:
    call = parse_call(block)
    assert call is not None
    assert json.loads(call.arguments) == arguments


@pytest.mark.parametrize(
    "block",
    [
        "",
        "os.system('x')",
        "[1]",
        '{"name": 3, "arguments": {}}',
        '{"name": "", "arguments": {}}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": "not json"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_call_is_none(block: str) -> None:
    assert parse_call(block) is None


def test_non_ascii_arguments_stay_readable() -> None:
    call = parse_call('{"name": "f", "arguments": {"city": "北京"}}')
    assert call is not None
    assert call.arguments == '{"city": "北京"}'
