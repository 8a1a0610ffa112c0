"""A token for every row of a batch, with the rows divided among threads where that is worth it.

numpy lets go of the interpreter while it goes over a row, and a row of one sequence has nothing to do with another's.
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.engines.llama_cpp.sampler import Sampler, sample

_DRAW = 16
"""A draw, a penalty or a constraint takes about so many times as long as finding the largest logit."""

_WORTH_DIVIDING = 4 << 20
"""Logits from which on dividing pays, where one whose row is only searched for the largest counts once."""

_MOST_THREADS = 2
"""More wait for each other: 64 rows of 32,000 with top-p took 28 ms with one thread, 19 with two, 22 with 8."""


class BatchSampler:
    """Samples with up to `threads` threads, which it keeps until it is left."""

    def __init__(self, threads: int) -> None:
        self._threads = max(1, min(threads, _MOST_THREADS))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="xinfer-sample")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def sample(self, logits: NDArray[np.float32], samplers: Sequence[Sampler]) -> list[int | None]:
        """As `sampler.sample`, for logits (rows, vocabulary), one sampler per row."""
        parts = self._parts(logits.shape[1], samplers)
        if len(parts) == 1:
            return sample(logits, samplers)
        sampled = self._pool.map(lambda part: sample(logits[part[0] : part[1]], samplers[part[0] : part[1]]), parts)
        return [token for tokens in sampled for token in tokens]

    def _parts(self, vocabulary: int, samplers: Sequence[Sampler]) -> list[tuple[int, int]]:
        whole = [(0, len(samplers))]
        if self._threads == 1 or len(samplers) < 2:
            return whole
        costs = [1 if sampler.plain or (sampler.greedy and not sampler.adjusts) else _DRAW for sampler in samplers]
        if sum(costs) * vocabulary < _WORTH_DIVIDING:
            return whole
        # Rows of equal cost are neighbours often enough that parts of equal cost need no sorting.
        ends = np.searchsorted(np.cumsum(costs), np.arange(1, self._threads) * (sum(costs) / self._threads))
        edges = sorted({0, *(int(end) for end in ends), len(samplers)})
        return list(itertools.pairwise(edges))
