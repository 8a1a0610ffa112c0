"""How deep a body may be nested, and that brackets in its strings do not count."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.nesting import MOST, deeper_than
from xinfer_runtime.errors import InvalidRequest

TEXTS = st.text(st.sampled_from('[]{}"\\,: a\n'))
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=20,
)


def depth(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


@given(VALUES, st.integers(0, 6))
def test_it_is_as_deep_as_it_is_when_parsed(value: Any, levels: int) -> None:
    assert deeper_than(json.dumps(value).encode(), levels) is (depth(value) > levels)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_body_may_have_so_many_levels_and_no_more(opening: str, closing: str) -> None:
    def body(levels: int) -> bytes:
        return (opening * levels + "1" + closing * levels).encode()

    assert depth(decode(body(MOST), object)) == MOST
    for levels in (MOST + 1, 900, 990, 100_000):
        with pytest.raises(InvalidRequest, match="nested deeper than 128 levels"):
            decode(body(levels), object)


def test_many_brackets_side_by_side_are_no_depth() -> None:
    assert len(decode(b"[" + b"[],[]," * 10_000 + b'"[[[["]', list[Any])) == 20_001
