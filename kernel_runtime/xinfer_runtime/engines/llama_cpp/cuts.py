"""Cuts: which tokens of a distribution may be drawn at all.

Top-k, typical, top-p, min-p and XTC, in llama.cpp's order, each over what the one before left.
"""

import math

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.engines.llama_cpp.ranking import largest, nucleus
from xinfer_runtime.messages import SamplingParams

Indices = NDArray[np.int64]
Logits = NDArray[np.float32]


def cut(logits: Logits, params: SamplingParams, chance: float) -> tuple[Indices | None, Logits]:
    """The tokens that are left of the logits (vocabulary,), and their logits. None stands for all tokens in order.

    `chance`, from 0 to 1, decides whether XTC acts. At least one token is left.
    """
    tokens: Indices | None = None
    kept = logits
    if 0 < params.top_k < len(logits):
        tokens = np.sort(largest(logits, params.top_k))
        kept = logits[tokens]
    if params.typical_p < 1.0:
        tokens, kept = _narrowed(tokens, kept, typical(kept, params.typical_p))
    if params.top_p < 1.0:
        tokens, kept = _narrowed(tokens, kept, nucleus(kept, params.top_p))
    if params.min_p > 0.0:
        # p >= min_p * p_max, said of logits, needs no probabilities.
        strong = np.flatnonzero(kept >= kept.max() + math.log(min(params.min_p, 1.0)))
        tokens, kept = _narrowed(tokens, kept, strong)
    if chance < params.xtc_probability:
        tokens, kept = _narrowed(tokens, kept, without_top_choices(kept, params.xtc_threshold))
    return tokens, kept


def typical(logits: Logits, mass: float) -> Indices:
    """Indices, ascending, of the tokens whose information is closest to the entropy, with at least `mass` together.

    Meister et al., Locally Typical Sampling, TACL 2023.
    """
    possible = np.flatnonzero(np.isfinite(logits))
    gaps = logits[possible] - logits.max()
    weights = np.exp(gaps)
    total = weights.sum(dtype=np.float64)
    # With p = exp(gap) / total, information is log(total) - gap; the logarithm cancels out against the entropy's own.
    oddity = np.abs(gaps - np.float32((weights * gaps).sum(dtype=np.float64) / total))
    order = np.argsort(oddity)
    count = int(np.searchsorted(np.cumsum(weights[order], dtype=np.float64), mass * total)) + 1
    return np.sort(possible[order[:count]])


def without_top_choices(logits: Logits, threshold: float) -> Indices:
    """Indices of all tokens but those with a probability of `threshold` or more, of which the least probable stays.

    XTC, "exclude top choices", as in llama.cpp: at least two such tokens are needed for anything to go.
    """
    weights = np.exp(logits - logits.max())
    top = np.flatnonzero(weights >= threshold * weights.sum(dtype=np.float64))
    if len(top) < 2:
        return np.arange(len(logits))
    stays = top[np.argmin(weights[top])]
    return np.delete(np.arange(len(logits)), top[top != stays])


def _narrowed(tokens: Indices | None, kept: Logits, inside: Indices) -> tuple[Indices, Logits]:
    return inside if tokens is None else tokens[inside], kept[inside]
