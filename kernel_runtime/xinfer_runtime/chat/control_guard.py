"""Keeps text of a request from becoming control tokens of the model.

In a rendered chat prompt `<|im_end|>` from the template ends a turn; the same characters typed by a user must stay
characters. Both are just text to Jinja. So before rendering, a mark that occurs nowhere in the request is put inside
every control text in the request's strings, and where a string could complete one together with the template's text;
after rendering, the prompt is cut at the marks. Each segment is tokenized by itself, so what was cut cannot match, and
the characters stay as they were typed.
"""

from collections.abc import Iterable

_MARKS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
"""Unicode noncharacters: for a program's internal use, never in text that is exchanged."""


class ControlGuard:
    """What has to be known of a vocabulary's control texts, worked out once."""

    def __init__(self, control_texts: Iterable[str]) -> None:
        # A control text of one character cannot be cut. No vocabulary in use has one.
        self.controls = tuple(text for text in control_texts if len(text) > 1)
        self.beginnings = frozenset(text[:n] for text in self.controls for n in range(1, len(text)))
        self.endings = frozenset(text[n:] for text in self.controls for n in range(1, len(text)))
        self.longest = max(map(len, self.controls), default=0)

    def begin(self, strings: Iterable[str]) -> "MarkedText":
        """Start on one request; `strings` are all of its strings."""
        unused = sorted(set(_MARKS).difference(*strings))
        if len(unused) > 1:
            return MarkedText(self, unused[0], unused[1])
        # The request uses nearly all of the noncharacters, so they cannot matter to it: without them, all are free.
        return MarkedText(self, _MARKS[0], _MARKS[1], strips=True)


class MarkedText:
    """The marking of one request's strings and the cutting of its prompt."""

    def __init__(self, guard: ControlGuard, mark: str, image: str, strips: bool = False) -> None:
        self._guard = guard
        self._mark = mark
        self._strips = strips
        self.image = image
        """What stands in a rendered prompt where an image belongs, and nowhere else."""

    def protect(self, text: str) -> str:
        """`text` with marks wherever it could form a control text."""
        if self._strips:
            text = text.translate(dict.fromkeys(map(ord, _MARKS)))
        mark, guard = self._mark, self._guard
        for control in guard.controls:
            if control in text:
                text = text.replace(control, control[0] + mark + control[1:])
        # Templates strip strings, so the ends are those inside the white space.
        inner = text.strip()
        lengths = range(1, min(guard.longest, len(inner) + 1))
        start = text.find(inner)
        end = start + len(inner)
        if any(inner[-n:] in guard.beginnings for n in lengths):
            text = text[:end] + mark + text[end:]
        if any(inner[:n] in guard.endings for n in lengths):
            text = text[:start] + mark + text[start:]
        return text

    def segments(self, rendered: str) -> list[str]:
        """The rendered prompt in pieces, each to be tokenized by itself."""
        return [segment for segment in rendered.split(self._mark) if segment]
