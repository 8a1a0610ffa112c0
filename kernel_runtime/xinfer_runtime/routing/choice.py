"""Which replica gets a request: the one that is through with it first, as far as tokens tell. A pure decision.

The cost of a replica is what it still owes to other requests, in tokens, less what it need not compute of this prompt.
So conversations stay where their cache is until that replica is much busier than others, and what matches nowhere goes
to the least outstanding tokens (NVIDIA Dynamo's KV router weighs the same two). A cached token counts `PREFIX_WORTH`
times: to compute it elsewhere costs the request its time, and the others there theirs and the place in their cache.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

PREFIX_WORTH: Final = 2.0


class Reason(StrEnum):
    """Why a replica was chosen, for the metrics."""

    PREFIX = "prefix"
    """It has the longest prefix, and others have less of it."""
    LOAD = "load"
    """It has the least to do; either nothing matched, or the replica that had more of the prompt was too busy."""
    ONLY = "only"
    """There was no other."""


class Candidate(Struct, frozen=True):
    """`outstanding` are tokens that the replica owes, `cached` those of the prompt that it need not compute."""

    outstanding: float
    cached: int = 0


class Choice(Struct, frozen=True):
    """`index` among the candidates. `cached` is what it has of the prompt, in tokens."""

    index: int
    reason: Reason
    cached: int


def choose(candidates: Sequence[Candidate], turn: int = 0) -> Choice:
    """The candidate with the least cost; equal ones take turns.

    `turn` is any number that changes from call to call. There is at least one candidate.
    """
    count = len(candidates)
    if count == 1:
        return Choice(0, Reason.ONLY, candidates[0].cached)
    start = turn % count
    best = min(
        (*range(start, count), *range(start)),
        key=lambda index: candidates[index].outstanding - PREFIX_WORTH * candidates[index].cached,
    )
    cached = candidates[best].cached
    longest = max(candidate.cached for candidate in candidates)
    reason = Reason.PREFIX if cached and cached == longest else Reason.LOAD
    return Choice(best, reason, cached)
