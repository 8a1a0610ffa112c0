"""The objects in Gemma's tool calls: `{city:<escape>Rome<escape>,days:[1,2],at:{x:true}}`.

It is JSON with bare keys, and marks where JSON has quotes: `<escape>`, or `<|"|>` in Gemma 4. A text cannot hold its
mark, so nothing in it needs escaping.
"""

import json
import re
from typing import Any

_QUOTES = ("<escape>", '<|"|>')
_BARE = re.compile(r"[^,:{}\[\]]*")
_MAX_DEPTH = 32


class _NoValueError(Exception):
    pass


def read_object(text: str) -> dict[str, Any] | None:
    """The object that `text` is from its first to its last character; None when it is none."""
    try:
        value, end = _value(text, 0, 0)
    except _NoValueError:
        return None
    return value if isinstance(value, dict) and end == len(text) else None


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """A value that begins at `at`, and where it ends."""
    if depth > _MAX_DEPTH:
        raise _NoValueError
    if text.startswith("{", at):
        pairs, at = _items(text, at + 1, "}", depth, keyed=True)
        return dict(pairs), at
    if text.startswith("[", at):
        return _items(text, at + 1, "]", depth, keyed=False)
    quoted = _quoted(text, at)
    if quoted is not None:
        return quoted
    bare = _BARE.match(text, at)
    assert bare is not None
    return _word(bare[0].strip()), bare.end()


def _items(text: str, at: int, closing: str, depth: int, *, keyed: bool) -> tuple[list[Any], int]:
    items: list[Any] = []
    if text.startswith(closing, at):
        return items, at + 1
    while True:
        key = ""
        if keyed:
            key, at = _key(text, at)
        value, at = _value(text, at, depth + 1)
        items.append((key, value) if keyed else value)
        if text.startswith(closing, at):
            return items, at + 1
        if not text.startswith(",", at):
            raise _NoValueError
        at += 1


def _key(text: str, at: int) -> tuple[str, int]:
    quoted = _quoted(text, at)
    if quoted is None:
        bare = _BARE.match(text, at)
        assert bare is not None
        quoted = bare[0].strip(), bare.end()
    key, at = quoted
    if not key or not text.startswith(":", at):
        raise _NoValueError
    return key, at + 1


def _quoted(text: str, at: int) -> tuple[str, int] | None:
    for quote in _QUOTES:
        if text.startswith(quote, at):
            end = text.find(quote, at + len(quote))
            if end < 0:
                raise _NoValueError
            return text[at + len(quote) : end], end + len(quote)
    return None


def _word(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word
