"""A second model guesses, and nobody can tell from what comes out."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xinfer_runtime.catalog.draft_file import read_draft
from xinfer_runtime.catalog.forecast import TOKEN_BYTES, forecast, forecast_draft
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.engines.llama_cpp.context import Context
from xinfer_runtime.engines.llama_cpp.draft_control import DraftControl
from xinfer_runtime.errors import InvalidRequest, ModelFileError
from xinfer_runtime.messages import Constraint, ConstraintKind, GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec

RunningEngine = Any


def by(draft: Path, **options: Any) -> dict[str, Any]:
    return {"speculation": "draft-model", "draft_model": str(draft), **options}


@pytest.fixture
def other_model(make_model: Callable[..., Path]) -> Path:
    """Of the same vocabulary, and of another opinion about what comes next."""
    return make_model(seed=2)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess at every step, whether it pays or not."""

    def all_of_them(_: DraftControl, rates: list[float], most: list[int], rows: int, room: int) -> list[int]:
        lengths = []
        for count in most:
            lengths.append(min(count, room))
            room -= lengths[-1]
        return lengths

    monkeypatch.setattr(DraftControl, "lengths", all_of_them)
    monkeypatch.setattr(DraftControl, "rests", lambda _: False)


@pytest.fixture(params=["agrees", "disagrees"])
def draft(request: pytest.FixtureRequest, tiny_model: Path, other_model: Path) -> Path:
    return tiny_model if request.param == "agrees" else other_model


def greedy(name: str, prompt: str, tokens: int = 60) -> GenerateRequest:
    return GenerateRequest(
        id=name, prompt=prompt, sampling=SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    )


async def test_greedy_seeded_and_constrained_outputs_are_the_same(
    engines: Callable[[], RunningEngine], tiny_model: Path, draft: Path, eager: None
) -> None:
    guessing, plain = engines(), engines()
    assert (await guessing.load(tiny_model, by(draft), max_sequences=8)).speculation == "draft-model"
    await plain.load(tiny_model, max_sequences=8)
    schema = {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 5, "maxItems": 5}
    samplings: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 0, "logprobs": 2},
        {"temperature": 0.8, "seed": 5, "top_p": 0.9},
        {"temperature": 0.3, "seed": 6, "repetition_penalty": 1.2, "logit_bias": {97: 20.0}},
        {"temperature": 0, "max_tokens": 2},
        {"temperature": 0.9, "seed": 7, "constraint": Constraint(ConstraintKind.JSON_SCHEMA, schema)},
    ]
    for number, fields in enumerate(samplings):
        constraint = fields.pop("constraint", None)
        sampling = SamplingParams(**{"max_tokens": 70, "ignore_eos": True, **fields})
        request = GenerateRequest(id=f"r{number}", prompt="Hello there", sampling=sampling, constraint=constraint)
        ours, theirs = await asyncio.gather(guessing.run(request), plain.run(request))
        assert guessing.tokens(request.id) == plain.tokens(request.id)
        assert guessing.text(request.id) == plain.text(request.id)
        assert ours[-1].usage.completion_tokens == theirs[-1].usage.completion_tokens
    stats = guessing.engine.stats()
    assert stats.drafted_tokens > 0
    assert (stats.running, stats.kv_used) == (0, 0)


async def test_a_model_that_agrees_saves_steps(
    engines: Callable[[], RunningEngine], tiny_model: Path, eager: None
) -> None:
    guessing = engines()
    await guessing.load(tiny_model, by(tiny_model, draft_tokens=4), max_sequences=4)
    deltas = await guessing.run(greedy("r", "Hello", 200))
    stats = guessing.engine.stats()
    assert stats.accepted_tokens > 0.95 * stats.drafted_tokens
    assert len(deltas) < 200 / 4


async def test_the_next_turn_of_a_conversation_is_guessed_too(
    engines: Callable[[], RunningEngine], tiny_model: Path, eager: None
) -> None:
    guessing, plain = engines(), engines()
    await guessing.load(tiny_model, by(tiny_model), max_sequences=2)
    await plain.load(tiny_model, max_sequences=2)
    tokens: tuple[int, ...] = tuple(b"A long beginning of a conversation. " * 3)
    for turn in range(4):
        sampling = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
        request = GenerateRequest(id=f"turn {turn}", token_ids=tokens, sampling=sampling)
        await asyncio.gather(guessing.run(request), plain.run(request))
        assert guessing.tokens(request.id) == plain.tokens(request.id)
        tokens = (*tokens, *guessing.tokens(request.id), *b" Go on.")
    stats = guessing.engine.stats()
    assert stats.accepted_tokens > 0.9 * stats.drafted_tokens > 0


async def test_a_crowd_with_aborts_in_too_few_cells_ends_as_each_alone(
    engines: Callable[[], RunningEngine], tiny_model: Path, draft: Path, eager: None
) -> None:
    guessing, plain = engines(), engines()
    await guessing.load(tiny_model, by(draft, kv_cells=400), max_sequences=6)
    await plain.load(tiny_model, max_sequences=1)
    requests = [
        greedy(f"r{number}", f"{number} {'one two three ' * (number % 4)}", 60 + number) for number in range(14)
    ]
    for request in requests:
        guessing.submit(request)
    await guessing.until(lambda: len(guessing.tokens("r0")) > 5)
    guessing.engine.abort("r1")
    guessing.engine.abort("r9")
    for request in requests:
        if request.id not in ("r1", "r9"):
            await guessing.finish(request.id)
            await plain.run(request)
            assert guessing.text(request.id) == plain.text(request.id)
    stats = guessing.engine.stats()
    assert stats.drafted_tokens > 0
    assert (stats.running, stats.waiting, stats.kv_used) == (0, 0, 0)


async def test_it_pauses_where_guesses_are_wrong(
    engines: Callable[[], RunningEngine], tiny_model: Path, other_model: Path
) -> None:
    guessing = engines()
    await guessing.load(tiny_model, by(other_model), max_sequences=4)
    for turn in range(6):
        await guessing.run(greedy(f"r{turn}", f"Turn {turn}", 400))
    stats = guessing.engine.stats()
    assert 0 < stats.drafted_tokens < 300


async def test_when_a_pass_of_the_draft_model_fails_the_answers_go_on(
    engines: Callable[[], RunningEngine], tiny_model: Path, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    guessing, plain = engines(), engines()
    await guessing.load(tiny_model, by(tiny_model), max_sequences=4)
    await plain.load(tiny_model, max_sequences=4)
    draft_context = guessing.engine._model.drafter._context
    decode, calls = Context.decode, 0

    def failing(self: Context, chunks: Any) -> int:
        nonlocal calls
        calls += self is draft_context
        return -3 if self is draft_context and calls > 5 else decode(self, chunks)

    monkeypatch.setattr(Context, "decode", failing)
    await guessing.run(greedy("r", "Hello", 100))
    await plain.run(greedy("r", "Hello", 100))
    assert guessing.tokens("r") == plain.tokens("r")
    assert 0 < guessing.engine.stats().drafted_tokens < 50


@pytest.fixture
def renamed(tiny_model: Path, tmp_path: Path) -> Path:
    """A model that spells a token in another way."""
    path = tmp_path / "renamed.gguf"
    path.write_bytes(tiny_model.read_bytes().replace(b"<tool_call>", b"<tool_cell>"))
    return path


async def test_another_vocabulary_is_refused(
    engines: Callable[[], RunningEngine], tiny_model: Path, make_model: Callable[..., Path], renamed: Path
) -> None:
    infilling = make_model(infill=True)  # Three tokens more, which is no other vocabulary.
    await engines().load(tiny_model, by(infilling))
    with pytest.raises(ModelFileError, match="token 259 is '<tool_cell>' and the model's '<tool_call>'") as refused:
        await engines().load(tiny_model, by(renamed))
    assert refused.value.param == "draft_model"
    with pytest.raises(ModelFileError, match="another vocabulary"):
        await engines().load(tiny_model, {"speculation": "draft-model", "draft_model": "xinfer-demo"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"speculation": "draft-model"}, "belong together"),
        ({"draft_model": "x.gguf"}, "belong together"),
        ({"speculation": "draft-model", "draft_model": "/nowhere/x.gguf"}, "does not exist"),
        ({"speculation": "draft-model", "draft_model": "nothing"}, "nothing"),
    ],
)
async def test_a_draft_model_that_is_not_there_is_refused(
    engines: Callable[[], RunningEngine], tiny_model: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises((InvalidRequest, ModelFileError), match=says) as refused:
        await engines().load(tiny_model, options)
    assert refused.value.param == "draft_model"


@pytest.mark.parametrize("fields", [{"max_sequences": 4}, {"max_sequences": 16, "context_length": 256}])
async def test_the_forecast_counts_it(
    engines: Callable[[], RunningEngine],
    tiny_model: Path,
    other_model: Path,
    fields: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()  # The cache and the attention as they are used.
    options = by(other_model, threads=1)
    info = await engines().load(tiny_model, options, n_gpu=0, **fields)
    spec = ModelSpec(uid="m", name="m", n_gpu=0, engine_options=options, **fields)
    file = read_gguf(tiny_model)
    draft = read_draft(str(other_model), tiny_model, file)
    expected = forecast(file, spec)
    beside = forecast_draft(draft, file, spec)
    total = expected.total - expected.process + beside - draft.vocab_size * TOKEN_BYTES
    assert beside > draft.weight_bytes
    # As near as without a draft model, for each of the two.
    assert total == pytest.approx(info.memory_bytes, rel=0.05, abs=2 << 19)
