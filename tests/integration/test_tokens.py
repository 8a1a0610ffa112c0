"""Tokens of texts and conversations, texts of tokens, and filling in, by real replicas."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.engines.conftest import write_model

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def http(xinfer_server: Any) -> Iterator[httpx.Client]:
    with xinfer_server.client() as client:
        yield client


@pytest.mark.parametrize("path", ["tokenize", "v1/tokenize"])
def test_a_text_becomes_tokens_and_comes_back(http: httpx.Client, path: str) -> None:
    tokens = http.post(path, json={"model": "xinfer-demo", "prompt": "Hello, Wörld!", "return_token_strs": True}).json()
    text = http.post(path.replace("token", "detoken"), json={"model": "xinfer-demo", "tokens": tokens["tokens"]}).json()

    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"]) > 0
    assert tokens["max_model_len"] == http.get("v1/models/xinfer-demo").json()["context_length"]
    assert text["prompt"] == "Hello, Wörld!"


def test_a_conversation_has_as_many_tokens_as_its_usage_says(http: httpx.Client) -> None:
    tokens = http.post("tokenize", json={"model": "xinfer-demo", "messages": MESSAGES}).json()
    chat = {"model": "xinfer-demo", "messages": MESSAGES, "max_tokens": 1}
    usage = http.post("v1/chat/completions", json=chat).json()["usage"]
    counted = http.post("v1/messages/count_tokens", json={"model": "xinfer-demo", "messages": MESSAGES}).json()

    assert tokens["count"] == usage["prompt_tokens"] == counted["input_tokens"]


def test_without_a_name_the_only_model_is_asked(http: httpx.Client) -> None:
    assert http.post("tokenize", json={"content": "Hello"}).json()["tokens"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("tokenize", {"model": "xinfer-demo"}, "prompt"),
        ("detokenize", {"model": "xinfer-demo", "tokens": [10**9]}, "tokens"),
        ("detokenize", {"model": "xinfer-demo", "tokens": ["a"]}, "tokens[0]"),
    ],
)
def test_a_mistake_is_named(http: httpx.Client, path: str, body: dict[str, Any], param: str) -> None:
    answer = http.post(path, json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_model_with_infill_tokens_takes_a_suffix_and_another_refuses_it(xinfer_server: Any, tmp_path: Path) -> None:
    uid = xinfer_server.launch(model_path=str(write_model(tmp_path / "fim.gguf", infill=True)))
    with openai.OpenAI(base_url=f"{xinfer_server.url}v1", api_key=xinfer_server.token, max_retries=0) as client:
        try:
            filled = client.completions.create(model=uid, prompt="def f(", suffix="):", max_tokens=4)
            plain = client.completions.create(model=uid, prompt="def f(", max_tokens=4)
        finally:
            with xinfer_server.client() as http:
                http.delete(f"v1/models/{uid}")
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="xinfer-demo", prompt="def f(", suffix="):")

    assert filled.usage is not None
    assert plain.usage is not None
    # Two characters more, and three tokens that say what is what.
    assert filled.usage.prompt_tokens == plain.usage.prompt_tokens + 2 + 3
    assert refused.value.param == "suffix"


def test_best_of_returns_the_most_probable_and_counts_all(xinfer_server: Any) -> None:
    def complete(**fields: Any) -> Any:
        return client.completions.create(
            model="xinfer-demo", prompt="Once upon a time", max_tokens=8, temperature=1.5, seed=7, **fields
        )

    def likelihood(choice: Any) -> float:
        logprobs = choice.logprobs.token_logprobs
        return float(sum(logprobs) / len(logprobs))

    with openai.OpenAI(base_url=f"{xinfer_server.url}v1", api_key=xinfer_server.token, max_retries=0) as client:
        every = complete(n=4, logprobs=0)
        best = complete(n=2, best_of=4)

    ranked = sorted(every.choices, key=likelihood, reverse=True)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ranked[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.choices[0].logprobs is None
    assert best.usage.completion_tokens == every.usage.completion_tokens


def test_a_prompt_of_token_ids_is_echoed_as_text(xinfer_server: Any, http: httpx.Client) -> None:
    tokens = http.post("tokenize", json={"model": "xinfer-demo", "prompt": "Once upon"}).json()["tokens"]
    with openai.OpenAI(base_url=f"{xinfer_server.url}v1", api_key=xinfer_server.token, max_retries=0) as client:
        echoed = client.completions.create(model="xinfer-demo", prompt=[tokens], echo=True, max_tokens=2, temperature=0)
        plain = client.completions.create(model="xinfer-demo", prompt=[tokens], max_tokens=2, temperature=0)
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="xinfer-demo", prompt=[10**9], echo=True)

    assert echoed.choices[0].text == "Once upon" + plain.choices[0].text
    assert refused.value.param == "prompt"
