"""In which order requests that wait are let in. A state machine without I/O.

Interactive ones go first; so that batch ones do not wait for ever, every eighth place is one of theirs. A request that
does not fit yet lets others pass, but only so many, or a long one would wait for ever behind short ones.
"""

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Generic, Protocol, TypeVar

_BATCH_SHARE = 8
"""Of so many requests that are let in while both kinds wait, one is a batch request."""

_MOST_PASSED = 16
"""Requests that one which does not fit lets pass."""

_LOOK_AHEAD = 32
"""Requests that are looked at in one step: with a thousand that wait, looking at all would cost more than the step."""


class Waits(Protocol):
    batch: bool
    passed: int
    """Requests that were let in while it had the turn and did not fit."""


Item = TypeVar("Item", bound=Waits)


class WaitingOrder(Generic[Item]):
    """Items in two lines. Use: walk through `candidates`, stop where one fits, and `take` that one."""

    def __init__(self) -> None:
        self._interactive: deque[Item] = deque()
        self._batch: deque[Item] = deque()
        self._since_batch = 0

    def __len__(self) -> int:
        return len(self._interactive) + len(self._batch)

    def add(self, item: Item) -> None:
        """At the end of its line."""
        self._line(item).append(item)

    def put_back(self, item: Item) -> None:
        """At the front of its line: it was let in before."""
        self._line(item).appendleft(item)

    def remove(self, item: Item) -> None:
        """Raises ValueError for one that does not wait."""
        self._line(item).remove(item)

    def candidates(self) -> Iterator[Item]:
        """Those that may be let in next, in their order, up to one that has let enough others pass."""
        batch_first = bool(self._batch) and self._since_batch >= _BATCH_SHARE - 1
        lines = (self._batch, self._interactive) if batch_first else (self._interactive, self._batch)
        for item in islice(chain(*lines), _LOOK_AHEAD):
            yield item
            if item.passed >= _MOST_PASSED:
                return

    def take(self, item: Item) -> None:
        """The item, one of the `candidates`, is let in, before those that came ahead of it."""
        for ahead in self.candidates():
            if ahead is item:
                break
            ahead.passed += 1
        self.remove(item)
        if item.batch:
            self._since_batch = 0
        elif self._batch:
            self._since_batch += 1

    def _line(self, item: Item) -> deque[Item]:
        return self._batch if item.batch else self._interactive
