"""Which replica has computed the beginning of a prompt, as far as this gateway can know. Pure, bounded, forgetful.

Every prompt that is sent to a replica is noted block by block (`prompt_blocks`). A replica's share of the index is as
large as its KV cache, and loses what was used longest ago, ends of prompts before their beginnings, as the caches of
engines do. What nobody used for `AGE_SECONDS` counts for nothing.

Each block has the set of its replicas as the bits of a whole number, so that one walk along a prompt compares all
replicas at once, however many there are (the radix tree of SGLang's router, Zheng et al. 2024, answers the same
question; a chain of hashes needs no tree).
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from typing import Final

AGE_SECONDS: Final = 900.0
DEFAULT_CAPACITY: Final = 4096
LARGEST_CAPACITY: Final = 1 << 16
"""Blocks of one replica: 8 MiB of text at 128 bytes each, and about 10 MiB of this process."""

_AGED_AT_ONCE: Final = 64


class _Share:
    """What is known of one replica: its blocks by hash with the time of their last use, oldest first."""

    __slots__ = ("blocks", "capacity", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.capacity = DEFAULT_CAPACITY
        self.blocks: dict[int, float] = {}

    def fresh(self, blocks: Sequence[int], length: int, since: float) -> int:
        """How many of the first `length` blocks, all of them known, were used at `since` or later.

        Whoever uses a block uses those before it, so the times fall along the prompt.
        """
        known = self.blocks
        if known[blocks[length - 1]] >= since:
            return length
        return bisect_left(range(length), True, key=lambda index: known[blocks[index]] < since)


class PrefixIndex:
    """Of the replicas of one model. Times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._shares: dict[str, _Share] = {}
        self._numbered: list[_Share | None] = []
        self._of_block: dict[int, int] = {}
        self._names: list[str] = []

    def __len__(self) -> int:
        """Blocks known, all replicas together."""
        return sum(len(share.blocks) for share in self._shares.values())

    @property
    def replicas(self) -> frozenset[str]:
        return frozenset(self._shares)

    def matches(self, blocks: Sequence[int], now: float) -> dict[str, int]:
        """How many `blocks` at the start each replica has; those without any are left out."""
        found: dict[str, int] = {}
        of_block = self._of_block
        having = -1
        for length, block in enumerate(blocks):
            still = having & of_block.get(block, 0)
            if still != having:
                if length:
                    self._record(found, having & ~still, blocks, length, now)
                having = still
                if not still:
                    return found
        if blocks:
            self._record(found, having, blocks, len(blocks), now)
        return found

    def note(self, replica: str, blocks: Sequence[int], now: float, capacity: int = DEFAULT_CAPACITY) -> None:
        """The replica is about to compute these blocks; it keeps `capacity` of them."""
        share = self._shares.get(replica)
        if share is None:
            share = self._shares[replica] = self._enter(replica)
        share.capacity = max(1, min(capacity, LARGEST_CAPACITY))
        known, of_block, bit = share.blocks, self._of_block, 1 << share.number
        # From the end: of one prompt, the beginning is the last to be forgotten.
        for block in reversed(blocks[: share.capacity]):
            if known.pop(block, None) is None:
                of_block[block] = of_block.get(block, 0) | bit
            known[block] = now
        self._forget(share, now - AGE_SECONDS)

    def remove(self, replica: str) -> None:
        """The replica is gone, and its cache with it."""
        share = self._shares.pop(replica, None)
        if share is not None:
            for block in share.blocks:
                self._clear(block, share.number)
            self._numbered[share.number] = None

    def _enter(self, replica: str) -> _Share:
        number = self._numbered.index(None) if None in self._numbered else len(self._numbered)
        share = _Share(number)
        if number == len(self._numbered):
            self._numbered.append(share)
            self._names.append(replica)
        else:
            self._numbered[number], self._names[number] = share, replica
        return share

    def _record(self, found: dict[str, int], bits: int, blocks: Sequence[int], length: int, now: float) -> None:
        """Those whose bits are set have `length` blocks."""
        while bits:
            lowest = bits & -bits
            bits ^= lowest
            number = lowest.bit_length() - 1
            share = self._numbered[number]
            assert share is not None
            fresh = share.fresh(blocks, length, now - AGE_SECONDS)
            if fresh:
                found[self._names[number]] = fresh

    def _forget(self, share: _Share, since: float) -> None:
        """What is too much, and some of what is too old: one call never takes long."""
        blocks = share.blocks
        surplus = max(0, len(blocks) - share.capacity)
        for block, used in list(islice(blocks.items(), surplus + _AGED_AT_ONCE)):
            if len(blocks) <= share.capacity and used >= since:
                return
            del blocks[block]
            self._clear(block, share.number)

    def _clear(self, block: int, number: int) -> None:
        left = self._of_block[block] & ~(1 << number)
        if left:
            self._of_block[block] = left
        else:
            del self._of_block[block]
