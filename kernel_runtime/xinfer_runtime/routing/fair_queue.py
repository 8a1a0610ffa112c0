"""Whose request goes next where requests wait: users share by measured tokens. A state machine without I/O.

Each user has a counter of the tokens that were computed for him, divided by his weight, and the next request is one of
the user with the least (the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models", OSDI
2024, with weights). Prompts are counted as estimated when a request starts, and corrected when its usage is known;
generated tokens as they come. So two users who always have requests waiting get tokens in the ratio of their weights,
up to what their running requests make. Whoever had nothing waiting begins at the least counter of those who wait: he
cannot save up a claim, nor is he in debt for what nobody else wanted.

Interactive requests go ahead of batch ones. While both wait, one of `BATCH_EVERY` that start is a batch request, so
that these are slow but not stuck.
"""

from collections import deque
from typing import Final

from msgspec import Struct

from xinfer_runtime.messages import Delta, Priority

BATCH_EVERY: Final = 16
_FLOWS_KEPT: Final = 4096


class Flow(Struct, frozen=True):
    """Who shares: the name of a user or key, and his weight, above 0."""

    name: str = ""
    weight: float = 1.0


ANYBODY: Final = Flow()


class Ticket(Struct, eq=False):
    """A request that waits."""

    flow: Flow
    priority: Priority
    ahead: bool
    number: int


class FairQueue:
    """The requests for one model that wait."""

    def __init__(self) -> None:
        self._ahead: deque[Ticket] = deque()
        self._waiting: dict[Priority, dict[str, deque[Ticket]]] = {priority: {} for priority in Priority}
        self._counters: dict[str, float] = {}
        self._count = 0
        self._number = 0
        self._level = 0.0
        """The counter of whoever started last: where a newcomer begins while nobody waits."""
        self._since_batch = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, flow: Flow, priority: Priority, *, ahead: bool = False) -> Ticket:
        """Have a request wait; `ahead` of all others if it has been started before."""
        self._lift(flow.name)
        self._number += 1
        ticket = Ticket(flow, priority, ahead, self._number)
        if ahead:
            self._ahead.appendleft(ticket)
        else:
            self._waiting[priority].setdefault(flow.name, deque()).append(ticket)
        self._count += 1
        return ticket

    def next(self) -> Ticket | None:
        """The request whose turn it is."""
        if self._ahead:
            return self._ahead[0]
        interactive, batch = self._waiting[Priority.INTERACTIVE], self._waiting[Priority.BATCH]
        flows = batch if batch and (not interactive or self._since_batch >= BATCH_EVERY - 1) else interactive
        if not flows:
            return None
        counters = self._counters
        return min((line[0] for line in flows.values()), key=lambda each: (counters[each.flow.name], each.number))

    def leave(self, ticket: Ticket) -> None:
        """The request gives up."""
        if ticket.ahead:
            self._ahead.remove(ticket)
        else:
            flows = self._waiting[ticket.priority]
            line = flows[ticket.flow.name]
            line.remove(ticket)
            if not line:
                del flows[ticket.flow.name]
        self._count -= 1

    def start(self, flow: Flow, priority: Priority, ticket: Ticket | None = None) -> None:
        """A request starts: the one with the ticket, or one that did not have to wait."""
        if ticket is None:
            self._lift(flow.name)
        else:
            self.leave(ticket)
        self._level = max(self._level, self._counters[flow.name])
        if priority is Priority.BATCH or not self._waiting[Priority.BATCH]:
            self._since_batch = 0
        else:
            self._since_batch += 1

    def charge(self, flow: Flow, tokens: float) -> None:
        """So many tokens were computed for one of his requests; fewer than estimated where below 0."""
        if flow.name in self._counters:
            self._counters[flow.name] += tokens / flow.weight

    def _lift(self, name: str) -> None:
        """Nobody begins with less than those have who wait."""
        if any(name in flows for flows in self._waiting.values()):
            return
        others = [self._counters[each] for flows in self._waiting.values() for each in flows]
        floor = min(others, default=self._level)
        if len(self._counters) >= _FLOWS_KEPT and name not in self._counters:
            self._forget_idle(floor)
        self._counters[name] = max(self._counters.get(name, floor), floor)

    def _forget_idle(self, floor: float) -> None:
        """Those who would be lifted anyway; where that is not enough, the half that is least ahead."""
        idle = {name: at for name, at in self._counters.items() if not any(name in f for f in self._waiting.values())}
        surplus = sorted(idle, key=idle.__getitem__)[: len(idle) // 2]
        for name in {name for name, at in idle.items() if at <= floor} | set(surplus):
            del self._counters[name]


class Bill:
    """What one request costs its user, from its start on."""

    def __init__(self, queue: FairQueue, flow: Flow) -> None:
        self._queue = queue
        self._flow = flow
        self._prompt = 0.0

    def start(self, prompt_tokens: float) -> None:
        """The request was sent to a replica that has to compute so much of its prompt, about."""
        self._queue.charge(self._flow, prompt_tokens)
        self._prompt += prompt_tokens

    def observe(self, delta: Delta) -> None:
        if delta.token_ids:
            self._queue.charge(self._flow, len(delta.token_ids))
        if delta.usage is not None:
            computed = float(delta.usage.prompt_tokens - delta.usage.cached_tokens)
            self._queue.charge(self._flow, computed - self._prompt)
            self._prompt = computed
