"""Log probabilities: of the model's own distribution, whatever the sampling parameters are."""

import asyncio
import math
from typing import Any

import llama_cpp  # noqa: F401
import numpy as np
import pytest

from xinfer_runtime.engines.llama_cpp.logprobs import IMPOSSIBLE, likelihoods
from xinfer_runtime.engines.llama_cpp.sampler import Sampler, sample
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import FinishReason, GenerateRequest, SamplingParams, TokenLogprob

PROBABILITIES = np.array([0.4, 0.3, 0.15, 0.1, 0.05], dtype=np.float32)


def test_log_probabilities_are_those_of_a_softmax_with_the_best_first() -> None:
    (found,) = likelihoods(np.log(PROBABILITIES[np.newaxis, ::-1]) + 7, [0], [3])
    assert found.logprob == pytest.approx(math.log(0.05), abs=1e-6)
    assert [token for token, _ in found.top] == [4, 3, 2]
    assert [math.exp(p) for _, p in found.top] == pytest.approx([0.4, 0.3, 0.15], abs=1e-6)


def test_more_than_the_vocabulary_is_all_of_it() -> None:
    (found,) = likelihoods(np.log(PROBABILITIES[np.newaxis]), [0], [99])
    assert len(found.top) == 5


def test_an_impossible_token_has_a_finite_log_probability() -> None:
    (found,) = likelihoods(np.array([[0.0, -np.inf]], dtype=np.float32), [1], [2])
    assert (found.logprob, found.top[1]) == (IMPOSSIBLE, (1, IMPOSSIBLE))


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_sampling_parameters_leave_log_probabilities_alone(temperature: float) -> None:
    params = SamplingParams(
        temperature=temperature, top_k=1, presence_penalty=2, logit_bias={1: 9.0}, logprobs=2, seed=1
    )
    sampler = Sampler(params, 1, ())
    sampler.accept(0)
    assert sample(np.log(PROBABILITIES[np.newaxis]), [sampler]) == [1]
    assert sampler.likelihood is not None
    assert math.exp(sampler.likelihood.logprob) == pytest.approx(0.3)
    assert [token for token, _ in sampler.likelihood.top] == [0, 1]


def test_rows_that_do_not_ask_get_none() -> None:
    rows = np.log(np.stack([PROBABILITIES, PROBABILITIES[::-1], np.full(5, np.nan, dtype=np.float32)]))
    samplers = [Sampler(SamplingParams(logprobs=n), 1, ()) for n in (None, 0, 1)]
    assert sample(rows, samplers)[2] is None
    assert [sampler.likelihood is None for sampler in samplers] == [True, False, True]
    assert samplers[1].likelihood is not None
    assert samplers[1].likelihood.top == ()


def test_a_bias_shifts_the_distribution_by_its_exponential() -> None:
    sampler = Sampler(SamplingParams(logit_bias={0: math.log(0.5), 4: math.log(4)}), 5, ())
    counts = np.zeros(5)
    for _ in range(6000):
        (token,) = sample(np.log(PROBABILITIES[np.newaxis]), [sampler])
        counts[token] += 1
        sampler.draws += 1
    expected = PROBABILITIES * np.array([0.5, 1, 1, 1, 4])
    expected *= 6000 / expected.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # 99.9 %, 4 degrees of freedom.


def test_a_bias_decides_a_greedy_choice() -> None:
    sampler = Sampler(SamplingParams(temperature=0, logit_bias={3: 100.0}), 0, ())
    assert sample(np.log(PROBABILITIES[np.newaxis]), [sampler]) == [3]


RunningEngine = Any


@pytest.mark.parametrize("temperature", [0.0, 1.5])
async def test_every_token_of_a_stream_has_its_log_probability(running: RunningEngine, temperature: float) -> None:
    def request(request_id: str, logprobs: int | None, stop: tuple[str, ...] = ()) -> GenerateRequest:
        sampling = SamplingParams(
            temperature=temperature, seed=4, max_tokens=60, ignore_eos=True, logprobs=logprobs, stop=stop
        )
        return GenerateRequest(id=request_id, prompt="Hello", sampling=sampling)

    await asyncio.gather(*(running.run(request(str(n), n)) for n in (0, 3)), running.run(request("none", None)))
    assert running.tokens("3") == running.tokens("none")
    assert not any(delta.logprobs for delta in running.deltas["none"])
    piece = running.engine._model.facts.piece
    for n in (0, 3):
        for delta in running.deltas[str(n)]:
            assert [each.token for each in delta.logprobs] == [piece(token) for token in delta.token_ids]
            assert all(len(each.top) == n and each.logprob <= 0 for each in delta.logprobs)
    # Text is held back for incomplete characters and for what may become a stop string; log probabilities are not.
    stop = running.text("none")[20:22] + "never"
    deltas = await running.run(request("held", 1, (stop,)))
    assert [len(delta.logprobs) for delta in deltas] == [1] * 60
    if temperature == 0:
        assert all(each.top[0] == (each.token, each.logprob) for delta in deltas for each in delta.logprobs)


async def test_a_resumed_request_goes_on_with_the_log_probabilities(running: RunningEngine) -> None:
    def request(request_id: str, resume: tuple[int, ...] = ()) -> GenerateRequest:
        sampling = SamplingParams(temperature=1, seed=4, max_tokens=20, ignore_eos=True, logprobs=2)
        return GenerateRequest(id=request_id, prompt="Hello", sampling=sampling, resume=resume)

    def logprobs(request_id: str) -> list[TokenLogprob]:
        return [each for delta in running.deltas[request_id] for each in delta.logprobs]

    await running.run(request("whole"))
    await running.run(request("rest", tuple(running.tokens("whole")[:8])))
    assert [each.token for each in logprobs("rest")] == [each.token for each in logprobs("whole")][8:]
    assert [e.logprob for e in logprobs("rest")] == pytest.approx([e.logprob for e in logprobs("whole")][8:], abs=1e-3)


async def test_a_bias_for_a_token_that_is_none_is_refused(running: RunningEngine) -> None:
    sampling = SamplingParams(logit_bias={999_999: 1.0}, max_tokens=1)
    (delta,) = await running.run(GenerateRequest(id="r", prompt="Hello", sampling=sampling))
    assert delta.error is not None
    assert (delta.error.code, delta.error.param) == (InvalidRequest.code, "logit_bias")
    allowed = SamplingParams(logit_bias={97: 100.0}, max_tokens=5)
    deltas = await running.run(GenerateRequest(id="a", prompt="Hello", sampling=allowed))
    assert (running.text("a"), deltas[-1].finish_reason) == ("aaaaa", FinishReason.LENGTH)
