"""What our sampler draws against the distributions that llama.cpp's own samplers leave, on the demo model's logits."""

import ctypes
import math
from collections.abc import Iterator, Sequence
from typing import Any

import llama_cpp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.engines.llama_cpp.context import Chunk
from xinfer_runtime.engines.llama_cpp.dry import Dry
from xinfer_runtime.engines.llama_cpp.loading import LoadedModel, load_model
from xinfer_runtime.engines.llama_cpp.mirostat import Mirostat
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.sampler import Sampler, sample
from xinfer_runtime.messages import DryParams, MirostatParams, SamplingParams
from xinfer_runtime.models import LaunchRequest

PROMPT = "Once upon a time there was a little"
DRAWS = 20_000


class Candidates:
    """llama.cpp's array of token ids and logits."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self._data = np.zeros(len(logits), dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._data["id"], self._data["logit"] = np.arange(len(logits)), logits
        self._array: Any = llama_cpp.llama_token_data_array()
        self._array.data = self._data.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
        self._array.size, self._array.selected, self._array.sorted = len(logits), -1, False

    def apply(self, sampler: Any) -> None:
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(self._array))

    @property
    def left(self) -> NDArray[Any]:
        # Some samplers sort, and XTC moves the beginning.
        start = (ctypes.addressof(self._array.data.contents) - self._data.ctypes.data) // self._data.itemsize
        return self._data[start : start + self._array.size]

    @property
    def selected(self) -> int:
        return int(self._data["id"][self._array.selected])

    def probabilities(self) -> NDArray[np.float64]:
        """Of every token of the vocabulary."""
        weights = np.zeros(len(self._data))
        left = self.left
        weights[left["id"]] = np.exp(left["logit"].astype(np.float64) - left["logit"].max())
        return weights / weights.sum()


class Chain:
    """Some of llama.cpp's samplers one after the other."""

    def __init__(self, *samplers: Any) -> None:
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for each in samplers:
            llama_cpp.llama_sampler_chain_add(self._chain, each)

    def accept(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            llama_cpp.llama_sampler_accept(self._chain, token)

    def applied_to(self, logits: NDArray[np.float32]) -> Candidates:
        candidates = Candidates(logits)
        candidates.apply(self._chain)
        return candidates

    def free(self) -> None:
        llama_cpp.llama_sampler_free(self._chain)


@pytest.fixture(scope="module")
def demo() -> Iterator[LoadedModel]:
    spec = inspect(resolve(LaunchRequest(model_name="xinfer-demo")))
    model = load_model(spec, Options(threads=1), lambda fraction, stage: True)
    yield model
    model.free()


@pytest.fixture(scope="module")
def row(demo: LoadedModel) -> NDArray[np.float32]:
    """The logits after the prompt."""
    tokens = demo.weights.vocabulary.tokenize([PROMPT])
    demo.context.forget_all()
    assert demo.context.decode([Chunk(0, 0, tokens, 1)]) == 0
    return demo.context.logits(1)[0].copy()


def chi_square_excess(tokens: list[int], probabilities: NDArray[np.float64]) -> float:
    """How many standard deviations the statistic is above its mean; rare tokens count as one."""
    counts = np.bincount(tokens, minlength=len(probabilities)).astype(np.float64)
    assert not counts[probabilities == 0].any(), "a token was drawn that llama.cpp rules out"
    expected = probabilities * len(tokens)
    often = expected >= 10
    groups = [(counts[often], expected[often])]
    if expected[~often].sum() >= 10:
        groups.append((counts[~often].sum(keepdims=True), expected[~often].sum(keepdims=True)))
    statistic = sum(float(((seen - due) ** 2 / due).sum()) for seen, due in groups)
    freedom = sum(len(due) for _, due in groups) - 1
    return 0.0 if freedom == 0 else (statistic - freedom) / math.sqrt(2 * freedom)


SETTINGS = {
    "plain": (SamplingParams(), []),
    "temperature": (SamplingParams(temperature=0.7), [("temp", 0.7)]),
    "hot": (SamplingParams(temperature=1.6), [("temp", 1.6)]),
    "top_k": (SamplingParams(top_k=12), [("top_k", 12)]),
    "top_p": (SamplingParams(top_p=0.8), [("top_p", 0.8, 1)]),
    "min_p": (SamplingParams(min_p=0.05), [("min_p", 0.05, 1)]),
    "typical": (SamplingParams(typical_p=0.7), [("typical", 0.7, 1)]),
    "xtc": (SamplingParams(xtc_probability=1.0, xtc_threshold=0.05), [("xtc", 1.0, 0.05, 1, 1)]),
    "all": (
        SamplingParams(top_k=40, typical_p=0.95, top_p=0.9, min_p=0.02, temperature=1.2),
        [("top_k", 40), ("typical", 0.95, 1), ("top_p", 0.9, 1), ("min_p", 0.02, 1), ("temp", 1.2)],
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_come_as_often_as_llama_cpp_would_draw_them(row: NDArray[np.float32], name: str) -> None:
    params, theirs = SETTINGS[name]
    chain = Chain(*(getattr(llama_cpp, f"llama_sampler_init_{kind}")(*values) for kind, *values in theirs))
    expected = chain.applied_to(row).probabilities()
    chain.free()

    sampler = Sampler(params, 11, prompt=())
    tokens = []
    for _ in range(DRAWS):
        tokens.append(sampler.draw(row))
        sampler.draws += 1

    assert chi_square_excess(tokens, expected) < 4


@pytest.mark.parametrize(
    ("params", "values"),
    [
        (SamplingParams(repetition_penalty=1.3), (64, 1.3, 0.0, 0.0)),
        (SamplingParams(repetition_penalty=0.8, penalty_window=5), (5, 0.8, 0.0, 0.0)),
        (SamplingParams(frequency_penalty=0.6), (64, 1.0, 0.6, 0.0)),
        (SamplingParams(presence_penalty=-0.7), (64, 1.0, 0.0, -0.7)),
    ],
)
def test_penalties_are_llama_cpps(
    row: NDArray[np.float32], params: SamplingParams, values: tuple[int, float, float, float]
) -> None:
    generated = np.argsort(row)[::-1][[0, 1, 0, 5, 9, 0, 700, 3]].tolist()
    chain = Chain(llama_cpp.llama_sampler_init_penalties(len(row), *values))
    chain.accept(generated)
    expected = chain.applied_to(row).probabilities()
    chain.free()

    sampler = Sampler(params, 0, prompt=())
    for token in generated:
        sampler.accept(token)
    penalized = row.copy()
    sampler.penalize(penalized)

    assert Candidates(penalized).probabilities() == pytest.approx(expected, rel=1e-4)


def test_greedy_tokens_are_those_that_llama_cpp_itself_chooses(demo: LoadedModel) -> None:
    prompt = demo.weights.vocabulary.tokenize([PROMPT])
    assert greedy(demo, prompt, ours=True) == greedy(demo, prompt, ours=False)


def greedy(demo: LoadedModel, prompt: list[int], ours: bool, count: int = 60) -> list[int]:
    chain = Chain(llama_cpp.llama_sampler_init_greedy())
    demo.context.forget_all()
    demo.context.decode([Chunk(0, 0, prompt, 1)])
    sampler = Sampler(SamplingParams(temperature=0), 0, prompt)
    tokens: list[int] = []
    for _ in range(count):
        logits = demo.context.logits(1)
        token = sample(logits.copy(), [sampler])[0] if ours else chain.applied_to(logits[0]).selected
        assert token is not None
        tokens.append(token)
        demo.context.decode([Chunk(0, len(prompt) + len(tokens) - 1, [token], True)])
    chain.free()
    return tokens


BREAKERS = ("\n", ":", '"', "*", ". The", "xyz")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_dry_penalizes_what_llama_cpp_penalizes(demo: LoadedModel, data: st.DataObject) -> None:
    vocabulary = demo.weights.vocabulary
    params = DryParams(
        multiplier=data.draw(st.sampled_from([0.5, 3.0])),
        base=data.draw(st.sampled_from([1.0, 1.1, 1.75, 80.0])),
        allowed_length=data.draw(st.integers(0, 4)),
        penalty_last_n=data.draw(st.sampled_from([-1, 5, 30])),
        sequence_breakers=tuple(data.draw(st.lists(st.sampled_from(BREAKERS), unique=True))),
    )
    few = vocabulary.tokenize(['abc. The "x\nxyz:'])
    history = data.draw(st.lists(st.sampled_from(few), min_size=1, max_size=80))
    prompt = data.draw(st.integers(0, len(history)))

    texts = [each.encode() for each in params.sequence_breakers]
    window = 1000 if params.penalty_last_n < 0 else params.penalty_last_n
    chain = Chain(
        llama_cpp.llama_sampler_init_dry(
            llama_cpp.llama_model_get_vocab(demo.weights.handle),
            params.multiplier,
            params.base,
            params.allowed_length,
            window,
            (ctypes.c_char_p * len(texts))(*texts),
            len(texts),
        )
    )
    chain.accept(history)
    expected = np.zeros(vocabulary.size, dtype=np.float32)
    left = chain.applied_to(np.zeros(vocabulary.size, dtype=np.float32)).left
    expected[left["id"]] = left["logit"]
    chain.free()

    assert demo.facts.breakers is not None
    dry = Dry(params, demo.facts.breakers.of(params.sequence_breakers), history[:prompt])
    for token in history[prompt:]:
        dry.accept(token)
    ours = np.zeros(vocabulary.size, dtype=np.float32)
    dry.penalize(ours)

    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize("tau", [1.5, 5.0])
def test_mirostat_leaves_what_llama_cpp_leaves(row: NDArray[np.float32], mode: int, tau: float) -> None:
    theirs = (
        llama_cpp.llama_sampler_init_mirostat(len(row), 7, tau, 0.3, 100)
        if mode == 1
        else llama_cpp.llama_sampler_init_mirostat_v2(7, tau, 0.3)
    )
    chain, ours = Chain(theirs), Mirostat(MirostatParams(mode=mode, tau=tau, eta=0.3))
    noise = np.random.default_rng(3)
    for _ in range(40):
        logits = row + noise.standard_normal(len(row)).astype(np.float32)
        candidates = chain.applied_to(logits)
        tokens = ours.cut(logits)
        if len(tokens) == len(row):
            # So even that the fit allows more tokens than there are, where llama.cpp's count can overflow.
            break
        assert set(tokens.tolist()) == set(candidates.left["id"].tolist())
        ours.learn(logits[tokens], int(np.flatnonzero(tokens == candidates.selected)[0]))
    chain.free()


def test_mirostat_draws_more_surprising_tokens_the_more_surprise_is_asked_for(row: NDArray[np.float32]) -> None:
    information = -np.log2(Candidates(row).probabilities())

    def mean_surprise(mode: int, tau: float) -> float:
        sampler = Sampler(SamplingParams(mirostat=MirostatParams(mode=mode, tau=tau)), 1, prompt=())
        drawn = []
        for _ in range(400):
            drawn.append(sampler.draw(row))
            sampler.draws += 1
        return float(information[drawn[100:]].mean())

    for mode in (1, 2):
        assert mean_surprise(mode, 0.5) < mean_surprise(mode, 6.0)
