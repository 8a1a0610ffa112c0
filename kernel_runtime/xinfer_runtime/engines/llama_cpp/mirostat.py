"""Mirostat: cuts that follow the text, so that its tokens stay as surprising as asked for.

Basu et al., Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity, ICLR 2021; version 2 is its
authors' simpler form. Computed as in llama.cpp, so that settings mean the same.
"""

import math

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.engines.llama_cpp.ranking import largest
from xinfer_runtime.messages import MirostatParams

Indices = NDArray[np.int64]
Logits = NDArray[np.float32]

_ESTIMATED_FROM = 100
"""Tokens from which version 1 estimates how steeply probabilities fall."""


class Mirostat:
    """The state of one sequence: `mu`, the surprise in bits that a token may have at most."""

    def __init__(self, params: MirostatParams, mu: float | None = None) -> None:
        self._params = params
        self.mu = 2 * params.tau if mu is None else mu

    def cut(self, logits: Logits) -> Indices:
        """Indices, ascending, of the tokens that may be drawn from the logits (n,) after temperature; at least one."""
        if self._params.mode == 1:
            return np.sort(largest(logits, self._most_probable(logits)))
        gaps = logits - logits.max()
        # Surprise is -log2(p) = (log(total) - gap) / log(2).
        total = math.log(float(np.exp(gaps).sum(dtype=np.float64)))
        inside = np.flatnonzero(gaps >= total - self.mu * math.log(2))
        return inside if len(inside) else np.array([int(logits.argmax())])

    def learn(self, logits: Logits, index: int) -> None:
        """The token at `index` was drawn from those logits (n,), which `cut` left."""
        gaps = logits - logits.max()
        surprise = (math.log(float(np.exp(gaps).sum(dtype=np.float64))) - float(gaps[index])) / math.log(2)
        self.mu -= self._params.eta * (surprise - self._params.tau)

    def _most_probable(self, logits: Logits) -> int:
        """How many tokens are left by version 1: fitted to Zipf's law, they would be as surprising as `mu` allows."""
        vocabulary = len(logits)
        top = logits[largest(logits, min(_ESTIMATED_FROM, vocabulary))].astype(np.float64)
        top = top[np.isfinite(top)]
        if len(top) < 2:
            return 1
        rank = np.arange(1, len(top))
        falls = np.log((rank + 1) / rank)
        steepness = float((falls * (top[:-1] - top[1:])).sum() / (falls * falls).sum())
        excess = steepness - 1
        try:
            count = ((excess * 2**self.mu) / (1 - vocabulary**-excess)) ** (1 / steepness)
        except (ZeroDivisionError, OverflowError):
            return vocabulary
        # An even distribution has no steepness, and the power of a negative number is complex.
        return min(max(int(count), 1), vocabulary) if isinstance(count, float) and count < vocabulary else vocabulary
