"""Counts what a request uses: against its caller's limits, and into the ledger."""

from collections.abc import Iterator
from contextlib import contextmanager

from jupyter_xinfer.auth.ledger import Ledger
from jupyter_xinfer.auth.limits import Limiter
from jupyter_xinfer.auth.principal import Principal
from xinfer_runtime.messages import Delta


class Count:
    """The tokens of one request so far. Prompt tokens are known as soon as they are computed, whoever waits for it."""

    def __init__(self, limiter: Limiter, caller: Principal) -> None:
        self._limiter = limiter
        self._caller = caller
        self._begun: dict[str, int] = {}
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def begin(self, delta: Delta) -> None:
        """What an engine said of the request, or of a piece of it, which has an id of its own."""
        if delta.prompt_tokens:
            self._begun[delta.id] = delta.prompt_tokens
            self._charge(max(self.prompt_tokens, sum(self._begun.values())), self.completion_tokens)

    def observe(self, delta: Delta) -> None:
        """What the caller gets."""
        prompt, completion = self.prompt_tokens, self.completion_tokens + len(delta.token_ids)
        if delta.usage is not None:
            prompt, completion = (
                max(prompt, delta.usage.prompt_tokens),
                max(completion, delta.usage.completion_tokens),
            )
        self._charge(prompt, completion)

    def _charge(self, prompt: int, completion: int) -> None:
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
