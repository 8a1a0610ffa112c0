"""Which tokens a text may begin or lie in: DRY's sequence breakers in one vocabulary.

For one thread, that which prepares requests. A text of some characters can begin inside a token and end in another, so
for each token that it overlaps, the tokens of what is left of it must follow.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from xinfer_runtime.engines.llama_cpp.dry import Breakers

_CACHED_TEXTS = 64
_LONGEST_TAIL = 20

_Tails = dict[int, list[tuple[int, ...]]]


class SequenceBreakers:
    """`spelling` gives a token's bytes, of control tokens too, and `tokenize` the tokens of a text as it is."""

    def __init__(self, spelling: Callable[[int], bytes], size: int, tokenize: Callable[[bytes], Sequence[int]]) -> None:
        self._spelling = spelling
        self._size = size
        self._tokenize = tokenize
        self._spellings: list[bytes] | None = None
        self._known: OrderedDict[str, _Tails] = OrderedDict()

    def of(self, texts: Iterable[str]) -> Breakers:
        """The breakers for these texts."""
        breakers: _Tails = {}
        for text in texts:
            tails = self._known.pop(text, None)
            if tails is None:
                tails = self._find(text.encode("utf-8", errors="replace"))
            self._known[text] = tails
            for token, each in tails.items():
                breakers.setdefault(token, []).extend(each)
        while len(self._known) > _CACHED_TEXTS:
            self._known.popitem(last=False)
        return breakers

    def _find(self, text: bytes) -> _Tails:
        if self._spellings is None:
            self._spellings = [self._spelling(token) for token in range(self._size)]
        found: _Tails = {}
        rest: dict[int, tuple[int, ...]] = {}
        for token, spelling in enumerate(self._spellings):
            if text in spelling:
                found[token] = [()]
                continue
            # The token may end with the beginning of the text.
            for length in range(min(len(text) - 1, len(spelling)), 0, -1):
                if spelling.endswith(text[:length]):
                    if length not in rest:
                        rest[length] = tuple(self._tokenize(text[length:]))[:_LONGEST_TAIL]
                    tails = found.setdefault(token, [])
                    if rest[length] not in tails:
                        tails.append(rest[length])
        return found
