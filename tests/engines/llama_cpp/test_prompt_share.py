"""How many tokens of prompts a step has while others decode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.prompt_share import PromptShare, StepCost

PACE = 0.02


def learned(start: float, each: float, per_token: float) -> PromptShare:
    """After steps of all kinds that took `start` seconds, `each` for everybody who decodes and so much for a token;
    what may be late has been.
    """
    share = PromptShare(PACE)

    def step(decoding: int, tokens: int) -> None:
        share.observe(decoding, tokens, start + each * decoding + per_token * tokens)

    for number in range(200):
        step(1 + number % 16, 32 * (number % 3))
    while share.tokens(1, 1) > 1e6:
        step(1, 512)
    return share


def test_a_step_takes_so_many_times_as_long_as_without_prompts() -> None:
    share = learned(0.02, 0.005, 0.001)
    tokens = share.tokens(16, 1)
    assert 0.1 + tokens * 0.001 == pytest.approx(2.5 * 0.1, rel=0.05)


def test_a_step_that_is_shorter_than_the_pace_may_take_as_long_as_if_it_were_not() -> None:
    share = learned(0.004, 0.001, 0.0005)
    assert 0.005 + share.tokens(1, 1) * 0.0005 == pytest.approx(2.5 * PACE, rel=0.05)


def test_where_more_wait_than_decode_prompts_get_more() -> None:
    share = learned(0.02, 0.02, 0.001)
    one = share.tokens(4, 1)
    assert share.tokens(4, 4) == one
    assert share.tokens(4, 12) == pytest.approx(3 * one, abs=3)


def test_a_slow_model_computes_prompts_all_the_same() -> None:
    assert learned(0.1, 0.02, 1.0).tokens(4, 1) == 32


def test_what_a_token_takes_is_learned_where_nobody_ever_only_decodes() -> None:
    cost = StepCost()
    for number in range(200):
        decoding, tokens = 30 + number % 7, 40 + 10 * (number % 5)
        cost.observe(decoding, tokens, 0.01 + 0.0014 * decoding + 0.0009 * tokens)
    assert cost.per_token == pytest.approx(0.0009, rel=0.05)
    assert cost.seconds(33, 0) == pytest.approx(0.01 + 0.0014 * 33, rel=0.05)


def test_what_prompts_take_is_not_forgotten_while_there_are_none() -> None:
    share = learned(0.02, 0.005, 0.001)
    before = share.tokens(16, 1)
    for _ in range(5000):
        share.observe(16, 0, 0.1)
    while (tokens := share.tokens(16, 1)) > 1e6:
        share.observe(16, 512, 0.1 + 0.512)
    assert tokens == pytest.approx(before, rel=0.05)


def test_a_step_that_was_interrupted_hardly_counts() -> None:
    share = learned(0.02, 0.005, 0.001)
    before = share.tokens(16, 1)
    share.observe(16, 0, 60.0)
    assert share.tokens(16, 1) == pytest.approx(before, rel=0.3)


def test_of_a_hundred_tokens_one_at_most_is_late() -> None:
    share = learned(0.02, 0.005, 0.001)
    late = 0
    for _ in range(1000):
        tokens = min(share.tokens(8, 4), 512)
        late += tokens > 200
        share.observe(8, tokens, 0.06 + 0.001 * tokens)
    assert 5 <= late <= 10


def test_what_many_wait_for_is_done_at_once_while_it_may_be() -> None:
    share = PromptShare(PACE)
    assert share.tokens(4, 12) > 1e6
    assert share.tokens(4, 1) < 1000


@given(
    steps=st.lists(st.tuples(st.integers(0, 256), st.integers(0, 2048), st.floats(0, 1e4))),
    decoding=st.integers(1, 256),
    prompts=st.integers(1, 256),
)
def test_whatever_was_seen_prompts_go_on(steps: list[tuple[int, int, float]], decoding: int, prompts: int) -> None:
    share = PromptShare(PACE)
    for step in steps:
        share.observe(*step)
    assert share.tokens(decoding, prompts) >= 32
