"""Where one output is in its grammar: which tokens may come next, and whether it is complete."""

from collections.abc import Callable

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from xinfer_runtime.engines.llama_cpp.constraint_grammar import PARAM
from xinfer_runtime.errors import InvalidRequest

_LONGEST_REASON = 400
_CEILINGS = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1, bitorder="little"), np.inf, -np.inf
).astype(np.float32)
"""For each byte of a mask, what the logits of its eight tokens are at most."""


class OutputConstraint:
    """The state of one request. Has failed when `failure` is not None, and then rules nothing out any more.

    Matchers of one grammar share what they learnt of it, and so its limit on states: when that is used up, a matcher of
    its own from `fresh`, once.
    """

    def __init__(self, matcher: LLMatcher, fresh: Callable[[], LLMatcher]) -> None:
        self._matcher = matcher
        self._fresh: Callable[[], LLMatcher] | None = fresh
        self._tokens: list[int] = []
        self.failure: InvalidRequest | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing but the end can come."""
        return self.failure is None and self._matcher.is_stopped()

    def accept(self, token: int) -> None:
        """A token was generated, here or by the replica that this request comes from."""
        self._tokens.append(token)
        if self.failure is None and not self._matcher.consume_token(token):
            self._start_afresh()

    def rule_out(self, logits: NDArray[np.float32]) -> None:
        """Set, in place, the logits (vocabulary,) of all tokens to -inf that cannot come next.

        Tokens that end the output stay exactly where it may end.
        """
        while self.failure is None:
            mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            if not self._matcher.is_error():
                # Eight tokens at a time: 30 us for 150,000, where an index or a condition per token takes up to 600.
                np.minimum(logits, _CEILINGS.take(mask, axis=0).reshape(-1)[: len(logits)], out=logits)
                return
            self._start_afresh()

    def _start_afresh(self) -> None:
        failed = self._matcher
        if self._fresh is not None:
            self._matcher, self._fresh = self._fresh(), None
            if self._matcher.consume_tokens(self._tokens):
                return
        why = reason(failed.get_error())
        self.failure = InvalidRequest(f"The output could not be kept to what was asked for: {why}", param=PARAM)


def reason(error: str) -> str:
    """What llguidance says, without its copy of the grammar and its backtrace."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    cause = next((line for line in lines if line.startswith("error: ")), None)
    said = " ".join([*lines[:1], *([cause] if cause else [])]) or "no reason was given"
    return said if len(said) <= _LONGEST_REASON else f"{said[:_LONGEST_REASON]}..."
