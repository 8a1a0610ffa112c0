"""Sampling: distributions, cuts, penalties, seeds."""

import math
from typing import Any

import llama_cpp  # noqa: F401
import numpy as np
import pytest
from numpy.typing import NDArray

from xinfer_runtime.engines.llama_cpp.sampler import Sampler, sample
from xinfer_runtime.messages import DryParams, SamplingParams

PROBABILITIES = [0.4, 0.3, 0.15, 0.1, 0.05]


def logits(probabilities: list[float]) -> NDArray[np.float32]:
    return np.log(np.array(probabilities, dtype=np.float32))


def draw_many(params: SamplingParams, row: NDArray[np.float32], draws: int = 4000, seed: int = 5) -> list[int]:
    sampler = Sampler(params, seed, prompt=())
    tokens = []
    for _ in range(draws):
        tokens.append(sampler.draw(row))
        sampler.draws += 1
    return tokens


def chi_square(tokens: list[int], probabilities: list[float]) -> float:
    counts = np.bincount(tokens, minlength=len(probabilities))
    expected = np.array(probabilities) * len(tokens)
    return float((((counts - expected) ** 2) / expected).sum())


def test_tokens_come_with_the_probabilities_of_the_model() -> None:
    assert chi_square(draw_many(SamplingParams(), logits(PROBABILITIES)), PROBABILITIES) < 18.5  # 99.9 %, 4 degrees.


def test_temperature_sharpens_the_distribution() -> None:
    sharpened = np.array(PROBABILITIES) ** 2
    expected = list(sharpened / sharpened.sum())
    assert chi_square(draw_many(SamplingParams(temperature=0.5), logits(PROBABILITIES)), expected) < 18.5


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        (SamplingParams(top_k=2), 2),
        (SamplingParams(top_k=99), 5),
        (SamplingParams(top_p=0.6), 2),
        (SamplingParams(top_p=0.71), 3),
        (SamplingParams(top_p=0.0), 1),
        (SamplingParams(min_p=0.3), 3),
        (SamplingParams(min_p=1.0), 1),
        # Of the three tokens that top-k leaves, two have 80 % of the remaining mass.
        (SamplingParams(top_k=3, top_p=0.8), 2),
        # A high temperature makes unlikely tokens likely, but not those that were cut off before.
        (SamplingParams(top_k=2, temperature=50.0), 2),
    ],
)
def test_cuts_keep_the_most_probable_tokens(params: SamplingParams, kept: int) -> None:
    shuffled = [PROBABILITIES[i] for i in (3, 0, 4, 1, 2)]
    best = set(np.argsort(shuffled)[::-1][:kept].tolist())
    assert set(draw_many(params, logits(shuffled), draws=600)) == best


def test_top_p_of_a_flat_distribution_keeps_most_tokens() -> None:
    flat = np.zeros(5000, dtype=np.float32)
    assert len(set(draw_many(SamplingParams(top_p=0.9), flat, draws=3000))) > 1500


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    row = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    first, again, other = (draw_many(SamplingParams(), row, 20, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_sampler_that_takes_over_goes_on_with_the_next_draw() -> None:
    row = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    whole = draw_many(SamplingParams(), row, 20, seed=9)
    successor = Sampler(SamplingParams(), 9, prompt=())
    for token in whole[:12]:
        successor.accept(token)
    assert sample(row[np.newaxis].copy(), [successor]) == [whole[12]]


def test_the_smallest_temperature_is_greedy() -> None:
    assert set(draw_many(SamplingParams(temperature=1e-30), logits(PROBABILITIES), draws=50)) == {0}


def test_greedy_rows_and_sampled_rows_share_a_batch() -> None:
    rows = np.stack([logits([0.1, 0.9]), logits([0.9, 0.1]), logits([0.5, 0.5])])
    greedy = SamplingParams(temperature=0)
    first, second, third = sample(
        rows, [Sampler(greedy, 0, ()), Sampler(greedy, 0, ()), Sampler(SamplingParams(), 0, ())]
    )
    assert (first, second) == (1, 0)
    assert third in (0, 1)


def test_presence_and_frequency_count_generated_tokens_only() -> None:
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    sampler = Sampler(params, 0, prompt=[0])
    for token in (1, 1, 2):
        sampler.accept(token)
    row = np.zeros(4, dtype=np.float32)
    sampler.penalize(row)
    assert row.tolist() == [0.0, -1.0, -0.75, 0.0]


def test_repetition_divides_positive_and_multiplies_negative_logits_of_the_recent_tokens() -> None:
    params = SamplingParams(repetition_penalty=2.0, penalty_window=3)
    sampler = Sampler(params, 0, prompt=[0, 1, 2])
    sampler.accept(3)
    row = np.array([4.0, 4.0, -4.0, 4.0], dtype=np.float32)
    sampler.penalize(row)
    assert row.tolist() == [4.0, 2.0, -8.0, 2.0]


def test_the_longest_repetition_costs_a_number() -> None:
    params = SamplingParams(temperature=0, dry=DryParams(multiplier=100.0, base=1.75, sequence_breakers=()))
    sampler = Sampler(params, 0, [1, 2, 3] * 400)
    row = np.zeros((1, 4), dtype=np.float32)
    assert sample(row, [sampler]) == [0]
    assert np.isfinite(row).all()
    assert row[0, 1] < -1e30


def test_penalties_change_a_greedy_choice() -> None:
    sampler = Sampler(SamplingParams(temperature=0, presence_penalty=2.0), 0, ())
    sampler.accept(1)
    assert sample(np.array([[1.0, 2.0]], dtype=np.float32), [sampler]) == [0]


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 0.5},
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.1},
        {"frequency_penalty": 0.1},
        {"logit_bias": {1: 1.0}},
        {"dry": DryParams(multiplier=1.0)},
        {"logprobs": 0},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_only_a_greedy_row_of_which_nothing_else_is_asked_is_plain(asked: dict[str, Any]) -> None:
    assert Sampler(SamplingParams(temperature=0), 1, prompt=()).plain
    assert not Sampler(SamplingParams(**{"temperature": 0, **asked}), 1, prompt=()).plain


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_of_no_numbers_gives_no_token_and_leaves_the_others_alone(value: float, temperature: float) -> None:
    rows = np.array([[value, value], [0.0, 9.0]], dtype=np.float32)
    samplers = [Sampler(SamplingParams(temperature=temperature), 0, ()), Sampler(SamplingParams(temperature=0), 0, ())]
    assert sample(rows, samplers) == [None, 1]
