"""Log probabilities of tokens under the model's own distribution, for all rows of a batch that ask for them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.engines.llama_cpp.ranking import largest

IMPOSSIBLE = -9999.0
"""Stands for minus infinity, which JSON has no number for, as in OpenAI's API."""


@dataclass(frozen=True)
class Likelihood:
    """The natural-log probability of a token, and the most likely tokens in its place, best first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def likelihoods(logits: NDArray[np.float32], tokens: Sequence[int], tops: Sequence[int]) -> list[Likelihood]:
    """What the logits (rows, vocabulary), as the model gave them, say of one token per row; `tops[i]` is how many of
    the most likely ones row i wants.
    """
    found = []
    # Row by row: one row of a large vocabulary stays in the processor's cache, a whole batch does not and takes twice
    # as long.
    for row, token, top in zip(logits, tokens, tops, strict=True):
        highest = row.max()
        # The logarithm of a sum in f64: 150,000 small f32 lose digits.
        base = float(highest) + math.log(float(np.exp(row - highest).sum(dtype=np.float64)))
        best = largest(row, min(top, len(row))).tolist() if top > 0 else []
        found.append(Likelihood(_above(row[token], base), tuple((each, _above(row[each], base)) for each in best)))
    return found


def _above(logit: np.float32, base: float) -> float:
    return max(float(logit) - base, IMPOSSIBLE)
