"""The replicas of one model as the router compares them: what they have cached and what they owe."""

from collections.abc import Collection, Sequence
from typing import Final, Protocol

from msgspec import Struct

from xinfer_runtime.messages import Delta, ReplicaRequest, Usage
from xinfer_runtime.models import EngineStats, ModelInfo
from xinfer_runtime.routing.choice import Candidate, Choice, choose
from xinfer_runtime.routing.prefix_index import DEFAULT_CAPACITY, PrefixIndex
from xinfer_runtime.routing.prompt_blocks import BLOCK_BYTES, BYTES_PER_TOKEN, Prompt
from xinfer_runtime.routing.workload import AnswerLength, Share, Workload

BLOCK_TOKENS: Final = BLOCK_BYTES // BYTES_PER_TOKEN
_FORGOT: Final = 0.9
_KEPT: Final = 1.01
_LEAST_KEPT: Final = 0.05


class Choosable(Protocol):
    """What is asked of a link. `others` are requests of other gateways."""

    address: str
    workload: Workload
    stats: EngineStats
    info: ModelInfo | None

    @property
    def others(self) -> int: ...

    @property
    def outstanding(self) -> int: ...


def has_room(replica: Choosable, streams: int) -> bool:
    """Whether another request may go there: as many as it computes at a time, and a few to go on with at once.

    The others wait in the gateway, where their order is still open. `streams` bounds the requests of this gateway.
    """
    slots = replica.info.max_sequences if replica.info is not None else 0
    if not slots:
        return replica.outstanding < streams
    spare = max(2, slots // 4)
    return replica.outstanding < min(streams, slots + spare) and replica.stats.waiting <= spare


class ReplicaChoice:
    """Of one model. A replica is known by its address, which a restarted one, whose cache is empty, does not keep."""

    def __init__(self) -> None:
        self.lengths = AnswerLength()
        self._index = PrefixIndex()
        self._kept: dict[str, float] = {}
        """Of each replica's KV cache, the share that later requests find: engines keep less than all of it."""
        self._turn = 0

    def choose(self, replicas: Sequence[Choosable], prompt: Prompt, now: float) -> Choice:
        """Which of `replicas`, at least one, is to get the prompt. `now` is a time of a monotonic clock."""
        self._turn += 1
        matches = self._index.matches(prompt.blocks, now) if prompt.blocks else {}
        mean = self.lengths.mean
        candidates = [
            Candidate(
                each.workload.tokens + each.others * mean,
                # A prompt is never found as a whole: its last token is always computed.
                min(matches.get(each.address, 0) * BLOCK_TOKENS, prompt.tokens - 1),
            )
            for each in replicas
        ]
        return choose(candidates, self._turn)

    def sent(self, replica: Choosable, prompt: Prompt, cached: int, request: ReplicaRequest, now: float) -> "Errand":
        """The request was sent to that replica, of whose prompt it has `cached` tokens."""
        if prompt.blocks and replica.info is not None and replica.info.prefix_cache:
            cells = replica.stats.kv_total
            capacity = cells // BLOCK_TOKENS if cells else DEFAULT_CAPACITY
            kept = self._kept.setdefault(replica.address, 1.0)
            self._index.note(replica.address, prompt.blocks, now, max(1, int(capacity * kept)))
        share = replica.workload.add(prompt.tokens - cached, self.lengths.expected(request))
        return Errand(self, replica.address, share, cached / prompt.tokens)

    def learn(self, address: str, expected: float, usage: Usage) -> None:
        """The share of a prompt that was expected in a replica's cache, and what was found there."""
        if expected and usage.prompt_tokens and address in self._kept:
            found = usage.cached_tokens / usage.prompt_tokens
            step = _FORGOT if found < expected / 2 else _KEPT
            self._kept[address] = min(1.0, max(_LEAST_KEPT, self._kept[address] * step))

    def keep(self, addresses: Collection[str]) -> None:
        """Forget the replicas with other addresses: they are gone."""
        for address in self._index.replicas.difference(addresses):
            self._index.remove(address)
            self._kept.pop(address, None)


class Errand(Struct):
    """A request at a replica."""

    choice: ReplicaChoice
    address: str
    share: Share
    expected: float
    """The share of the prompt that ought to be cached."""
    generated: int = 0

    def observe(self, delta: Delta) -> None:
        self.generated += len(delta.token_ids)
        self.share.observe(delta)
        if delta.finish_reason is not None and self.generated:
            self.choice.lengths.learn(self.generated)
        if delta.usage is not None:
            self.choice.learn(self.address, self.expected, delta.usage)

    def end(self) -> None:
        """It has ended, or goes on elsewhere."""
        self.share.end()
