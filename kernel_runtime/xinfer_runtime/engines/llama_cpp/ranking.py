"""The largest of many numbers, and draws among many weights, with as little sorting and adding up as possible."""

from typing import Literal

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from numpy.typing import NDArray

_BLOCK = 512
_HEAD = 512


def largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices of the `count` largest values (n,), the largest first; `count` is from 1 to n."""
    found = np.argpartition(values, -count)[-count:] if count < len(values) else np.arange(len(values))
    # Equal values in the order of their indices, or which comes first would depend on the partition.
    found.sort()
    return found[np.argsort(-values[found], kind="stable")]


def nucleus(logits: NDArray[np.float32], mass: float) -> NDArray[np.int64]:
    """Indices, ascending, of the smallest set of most probable tokens with at least `mass` of the probability.

    Holtzman et al., The Curious Case of Neural Text Degeneration, ICLR 2020. Always at least one token; of equally
    probable ones at the edge, those with the lower indices are in.
    """
    gaps = logits.max() - logits
    # Values sort forty times faster than indices: with vector instructions, as there is nothing to carry along.
    edge, last = _edge(gaps, mass)
    inside = gaps < edge
    tied = np.flatnonzero(gaps == edge)
    inside[tied[: last + 1 - int(np.count_nonzero(inside))]] = True
    return np.flatnonzero(inside)


def _edge(gaps: NDArray[np.float32], mass: float) -> tuple[np.float32, int]:
    """The gap at which the sum of exp(-gap) over gaps (n,), smallest first, reaches `mass` of the whole; its rank."""
    if len(gaps) > 4 * _HEAD:
        # A model that knows what it wants has the mass in few tokens: they need not be found by sorting all.
        head = np.sort(np.partition(gaps, _HEAD)[:_HEAD])
        sums = np.cumsum(np.exp(-head), dtype=np.float64)
        target = mass * float(np.exp(-gaps).sum(dtype=np.float64))
        if sums[-1] > target * (1 + 1e-6):
            last = int(np.searchsorted(sums, target))
            return head[last], last
    ordered = np.sort(gaps)
    last = _reaching(np.exp(-ordered), mass, "left")
    return ordered[last], last


def pick(weights: NDArray[np.float32], point: float) -> int:
    """The index at which the running sum of weights (n,), none negative, passes `point` (0 to 1) of the whole sum."""
    return _reaching(weights, point, "right")


def _reaching(weights: NDArray[np.float32], point: float, side: Literal["left", "right"]) -> int:
    """The index at which the running sum reaches (left) or passes (right) `point` of the whole sum.

    Sums of blocks first: a running sum over everything takes as long as all the rest of a draw.
    """
    start, base, total = 0, 0.0, 0.0
    if len(weights) >= 2 * _BLOCK:
        # Within a block in f32, pairwise, which is exact to 1e-6 and takes a fifth of the time.
        whole = len(weights) // _BLOCK * _BLOCK
        blocks = weights[:whole].reshape(-1, _BLOCK).sum(axis=1)
        sums = np.cumsum(np.append(blocks, weights[whole:].sum()), dtype=np.float64)
        total = float(sums[-1])
        block = _found(sums, point * total, side)
        start, base = block * _BLOCK, float(sums[block - 1]) if block else 0.0
        weights = weights[start : start + _BLOCK]
    within = np.cumsum(weights, dtype=np.float64)
    return start + _found(within, point * (total or float(within[-1])) - base, side)


def _found(sums: NDArray[np.float64], target: float, side: Literal["left", "right"]) -> int:
    """Where the target is reached; the last index that adds anything, where rounding put the target past the end."""
    index = int(np.searchsorted(sums, target, side=side))
    return index if index < len(sums) else int(np.searchsorted(sums, sums[-1]))
