"""Evicted prefixes in host memory: their cells as llama.cpp writes them, by the tokens they were computed for.

No llama.cpp objects, no decisions about cells: bytes come and go, the least recently used first.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[int] | NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class SavedPrefix:
    """The cells of `tokens`, int32, computed with `adapter`. `state` holds bytes, uint8."""

    adapter: str
    tokens: NDArray[np.int32]
    state: NDArray[np.uint8]

    @property
    def bytes(self) -> int:
        return self.state.nbytes + self.tokens.nbytes


class PrefixStore:
    """Holds `capacity` bytes at most."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.bytes = 0
        self._saved: OrderedDict[int, SavedPrefix] = OrderedDict()
        self._next = 0

    def __len__(self) -> int:
        return len(self._saved)

    def covers(self, adapter: str, tokens: Tokens) -> bool:
        """Whether all of the tokens are the beginning of something in the store, which then counts as used."""
        found = self._best(adapter, np.asarray(tokens, dtype=np.int32))
        if found is None or found[1] < len(tokens):
            return False
        self._saved.move_to_end(found[0])
        return True

    def put(self, prefix: SavedPrefix) -> None:
        """Keep the prefix instead of those it begins with; nothing happens if it is larger than the store."""
        if prefix.bytes > self.capacity:
            return
        for key, each in list(self._saved.items()):
            if each.adapter == prefix.adapter and _common(each.tokens, prefix.tokens) == len(each.tokens):
                self._remove(key)
        while self.bytes + prefix.bytes > self.capacity:
            self._remove(next(iter(self._saved)))
        self._saved[self._next] = prefix
        self._next += 1
        self.bytes += prefix.bytes

    def longest(self, adapter: str, tokens: Sequence[int]) -> tuple[SavedPrefix, int] | None:
        """What has most in common with the tokens, and how many of them, at least one."""
        found = self._best(adapter, np.asarray(tokens, dtype=np.int32))
        if found is None:
            return None
        key, length = found
        self._saved.move_to_end(key)
        return self._saved[key], length

    def last_used_first(self) -> list[SavedPrefix]:
        return list(self._saved.values())[::-1]

    def clear(self) -> None:
        self._saved.clear()
        self.bytes = 0

    def _best(self, adapter: str, tokens: NDArray[np.int32]) -> tuple[int, int] | None:
        lengths = ((_common(each.tokens, tokens), key) for key, each in self._saved.items() if each.adapter == adapter)
        length, key = max(lengths, default=(0, 0))
        return (key, length) if length else None

    def _remove(self, key: int) -> None:
        self.bytes -= self._saved.pop(key).bytes


def _common(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
