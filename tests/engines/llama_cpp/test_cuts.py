"""Typical sampling and XTC; the other cuts are tested through the sampler."""

import llama_cpp  # noqa: F401
import numpy as np
import pytest

from xinfer_runtime.engines.llama_cpp.cuts import cut, typical, without_top_choices
from xinfer_runtime.engines.llama_cpp.sampler import Sampler
from xinfer_runtime.messages import SamplingParams

PROBABILITIES = np.array([0.4, 0.3, 0.15, 0.1, 0.05], dtype=np.float32)
LOGITS = np.log(PROBABILITIES)


@pytest.mark.parametrize("mass", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_typical_tokens_are_those_closest_to_the_entropy(mass: float) -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(50))
    entropy = -(p * np.log(p)).sum()
    expected: list[int] = []
    for token in np.argsort(np.abs(-np.log(p) - entropy)):
        expected.append(int(token))
        if p[expected].sum() >= mass:
            break
    assert typical(np.log(p).astype(np.float32) + 5, mass).tolist() == sorted(expected)


def test_typical_sampling_never_takes_an_impossible_token() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, 1.0], dtype=np.float32)
    assert typical(logits, 1.0).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("threshold", "left"),
    [(0.12, [2, 3, 4]), (0.3, [1, 2, 3, 4]), (0.35, [0, 1, 2, 3, 4]), (0.9, [0, 1, 2, 3, 4]), (0.01, [4])],
)
def test_of_the_top_choices_only_the_least_probable_is_left(threshold: float, left: list[int]) -> None:
    # 0.3 in f32 is a little less than 0.3.
    assert without_top_choices(LOGITS, threshold - 1e-3).tolist() == left


def test_xtc_acts_as_often_as_it_should_and_does_not_disturb_the_draws() -> None:
    params = SamplingParams(xtc_probability=0.25, xtc_threshold=0.2)
    sampler, plain = Sampler(params, 3, ()), Sampler(SamplingParams(), 3, ())
    counts = np.zeros(5)
    same = 0
    for draw in range(8000):
        sampler.draws = plain.draws = draw
        token = sampler.draw(LOGITS)
        counts[token] += 1
        same += token == plain.draw(LOGITS)
    reduced = np.array([0, 0.3, 0.15, 0.1, 0.05])
    expected = 8000 * (0.75 * PROBABILITIES + 0.25 * reduced / reduced.sum())
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # 99.9 %, 4 degrees of freedom.
    assert 6000 < same < 8000


def test_cuts_follow_each_other() -> None:
    # Top-k leaves 0 to 3; of their mass, 0.95, 0.4 and 0.3 are more than 70 %; XTC then leaves the lesser of the two.
    tokens, kept = cut(LOGITS, SamplingParams(top_k=4, top_p=0.7, xtc_probability=1.0, xtc_threshold=0.3), 0.5)
    assert tokens is not None
    assert (tokens.tolist(), kept.tolist()) == ([1], [LOGITS[1]])
    assert cut(LOGITS, SamplingParams(), 1.0)[0] is None
