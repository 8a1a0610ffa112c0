"""Sampling with threads gives what sampling without gives."""

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
import pytest

from xinfer_runtime.engines.llama_cpp.batch_sampler import BatchSampler
from xinfer_runtime.engines.llama_cpp.sampler import Sampler
from xinfer_runtime.messages import SamplingParams

VOCABULARY = 50_000


def samplers(rows: int) -> list[Sampler]:
    """Greedy ones, sampled ones with several cuts, and some that ask for log probabilities, in turns."""
    params = [
        SamplingParams(temperature=0),
        SamplingParams(temperature=0.8, top_p=0.9, logprobs=2),
        SamplingParams(temperature=1.0, top_k=40, presence_penalty=0.5),
        SamplingParams(temperature=0, logprobs=1),
    ]
    return [Sampler(params[row % 4], seed=row, prompt=[1, 2, 3]) for row in range(rows)]


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_the_same_tokens_and_likelihoods_however_many_threads_there_are(rows: int) -> None:
    logits = np.random.default_rng(1).standard_normal((rows, VOCABULARY), dtype=np.float32) * 3
    logits[rows // 2] = np.nan
    found = []
    for threads in (1, 2, 8):
        own = samplers(rows)
        with BatchSampler(threads) as sampler:
            tokens = sampler.sample(logits.copy(), own)
        found.append((tokens, [each.likelihood for each in own]))
    assert found[0] == found[1] == found[2]
    assert found[0][0][rows // 2] is None
    assert len(found[0][0]) == rows


def test_every_row_is_in_one_part() -> None:
    with BatchSampler(2) as sampler:
        for rows in (2, 3, 10, 64):
            parts = sampler._parts(VOCABULARY * 10, samplers(rows))
            assert [row for start, end in parts for row in range(start, end)] == list(range(rows))
            assert len(parts) == 2
