"""LoRA adapters over HTTP, as clients of OpenAI and Xinference choose them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.engines.lora_files import write_adapter

UID = "with-adapters"
SURE = [{"role": "user", "content": "What is the capital of France?"}]
"""Of every token of this answer the model is sure."""


@pytest.fixture(scope="module")
def http(xinfer_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = tmp_path_factory.mktemp("adapters") / "loud.gguf"
    write_adapter(path, {f"blk.{layer}.attn_q.weight": (256, 256) for layer in range(6)})
    with xinfer_server.client() as client:
        # Without a prefix cache: what comes from it is rounded differently, which can change a story.
        xinfer_server.launch(model_name="xinfer-demo", model_uid=UID, lora={"loud": str(path)}, prefix_cache=False)
        yield client
        client.delete(f"v1/models/{UID}")


def said(http: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 0, "max_tokens": 24, **fields}
    return http.post("v1/chat/completions", json=body)


def text(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_a_model_tells_its_adapters(http: httpx.Client) -> None:
    assert http.get(f"v1/models/{UID}").json()["lora"] == ["loud"]
    assert http.get("v1/models/xinfer-demo").json()["lora"] == []


def test_the_adapter_is_part_of_the_models_name(http: httpx.Client) -> None:
    answer = said(http, model=f"{UID}:loud")
    assert answer.json()["model"] == f"{UID}:loud"
    assert text(answer) != text(said(http, model=UID))
    assert text(said(http, model=UID, messages=SURE)) == "The capital of France is Paris."
    assert text(answer) == text(said(http, model=UID, lora_name="loud"))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": f"{UID}:quiet"}, "model"),
        ({"model": UID, "lora_name": "quiet"}, "lora_name"),
        ({"model": f"{UID}:loud", "lora_name": "quiet"}, "lora_name"),
        ({"model": "xinfer-demo:loud"}, "model"),
    ],
)
def test_an_adapter_that_is_not_there_is_named(http: httpx.Client, fields: dict[str, str], param: str) -> None:
    answer = said(http, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_an_adapter_of_a_model_that_is_not_there_is_not_found(http: httpx.Client) -> None:
    assert said(http, model="nothing:loud").status_code == 404


def test_a_launch_with_a_missing_adapter_says_which(http: httpx.Client) -> None:
    answer = http.post(
        "v1/models", json={"model_name": "xinfer-demo", "model_uid": "none", "lora": {"a": "/nowhere/a.gguf"}}
    )
    assert answer.status_code == 400
    assert "/nowhere/a.gguf cannot be read" in answer.text
