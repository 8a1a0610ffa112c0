"""Which replica gets a request: the one that is through with it first, as far as tokens tell. A pure decision.

The cost of a replica is what it still owes to other requests, in tokens, and what it would have to compute of this
prompt: its length less what the replica has cached of it. A long cached prefix outweighs a longer queue exactly as far
as it saves work, so conversations stay where their cache is until that replica is busier than the prefix is long, and
what matches nowhere goes to the least outstanding tokens (NVIDIA Dynamo's KV router weighs the same two).
"""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct


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
    """The candidate with the least to compute until the prompt is through; equal ones take turns.

    `turn` is any number that changes from call to call. There is at least one candidate.
    """
    count = len(candidates)
    if count == 1:
        return Choice(0, Reason.ONLY, candidates[0].cached)
    start = turn % count
    best = min(
        (*range(start, count), *range(start)),
        key=lambda index: candidates[index].outstanding - candidates[index].cached,
    )
    cached = candidates[best].cached
    longest = max(candidate.cached for candidate in candidates)
    reason = Reason.PREFIX if cached and cached == longest else Reason.LOAD
    return Choice(best, reason, cached)
