"""Counts what a request uses: against its caller's limits, and into the ledger."""

from collections.abc import Iterator
from contextlib import contextmanager

from jupyter_xinfer.auth.ledger import Ledger
from jupyter_xinfer.auth.limits import Limiter
from jupyter_xinfer.auth.principal import Principal
from xinfer_runtime.messages import Delta


class Count:
    """The tokens of one request so far. Prompt tokens are known from the last delta on."""

    def __init__(self, limiter: Limiter, caller: Principal) -> None:
        self._limiter = limiter
        self._caller = caller
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def observe(self, delta: Delta) -> None:
        prompt, completion = self.prompt_tokens, self.completion_tokens + len(delta.token_ids)
        if delta.usage is not None:
            prompt, completion = delta.usage.prompt_tokens, max(completion, delta.usage.completion_tokens)
        self._limiter.charge(self._caller, prompt + completion - self.prompt_tokens - self.completion_tokens)
        self.prompt_tokens, self.completion_tokens = prompt, completion


class Meter:
    def __init__(self, limiter: Limiter, ledger: Ledger) -> None:
        self._limiter = limiter
        self._ledger = ledger

    @contextmanager
    def request(self, caller: Principal, model: str) -> Iterator[Count]:
        """Around one request, however it ends. Raises `RateLimited` before it begins."""
        self._limiter.admit(caller)
        count = Count(self._limiter, caller)
        try:
            yield count
        finally:
            self._limiter.release(caller)
            self._ledger.add(caller.id, model, count.prompt_tokens, count.completion_tokens)

    async def close(self) -> None:
        await self._ledger.close()
