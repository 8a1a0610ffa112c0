"""What can be done to the cells of the KV cache's sequences, as values."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Remove:
    """Take the cells of positions `start` to `end` (-1: all from `start`) from a sequence."""

    sequence: int
    start: int
    end: int = -1


@dataclass(frozen=True)
class Share:
    """Let `target`, which is empty, have the first `end` cells of `source`."""

    source: int
    target: int
    end: int


@dataclass(frozen=True)
class Merge:
    """Give up `target`'s cells at positions `start` to `end` for those of `source`, which are worth the same."""

    source: int
    target: int
    start: int
    end: int


Operation = Remove | Share | Merge
"""A change of the KV cache. They must be made in their order, before the next forward pass."""


@dataclass(frozen=True)
class Save:
    """Cells of the sequence, which are those of `tokens`, are about to be removed. It has its place among the
    operations.
    """

    sequence: int
    adapter: str
    tokens: Sequence[int]
