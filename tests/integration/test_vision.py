"""Images over HTTP, as clients of OpenAI and Anthropic send them, to the demo model with a random projector."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from tests.engines.projector_files import IMAGE_TOKENS, picture, write_projector

UID = "sees"


def data_url(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


@pytest.fixture(scope="module")
def http(xinfer_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = write_projector(tmp_path_factory.mktemp("projectors") / "mmproj.gguf", text_width=256)
    with xinfer_server.client() as client:
        xinfer_server.launch(model_name="xinfer-demo", model_uid=UID, multimodal_projector=str(path))
        yield client
        client.delete(f"v1/models/{UID}")


@pytest.fixture
def client(http: httpx.Client, xinfer_server: Any) -> Iterator[openai.OpenAI]:
    base = xinfer_server.url.rstrip("/") + "/v1"
    with openai.OpenAI(base_url=base, api_key=xinfer_server.token, max_retries=0) as client:
        yield client


def asked(*images: bytes) -> Any:
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]


def chat(client: openai.OpenAI, *images: bytes, **fields: Any) -> Any:
    return client.chat.completions.create(
        model=UID, messages=asked(*images), temperature=0, max_tokens=16, extra_body={"ignore_eos": True}, **fields
    )


def test_the_model_says_that_it_sees(http: httpx.Client) -> None:
    seeing, blind = (http.get(f"v1/models/{uid}").json() for uid in (UID, "xinfer-demo"))
    assert "vision" in seeing["model_ability"]
    assert Path(seeing["multimodal_projector"]).name == "mmproj.gguf"
    assert "vision" not in blind["model_ability"]
    assert blind["multimodal_projector"] is None


def test_an_image_is_part_of_the_prompt(client: openai.OpenAI) -> None:
    blind, one = chat(client), chat(client, picture(1))
    again, other = chat(client, picture(1)), chat(client, picture(2))

    assert one.choices[0].message.content != blind.choices[0].message.content
    assert one.usage.prompt_tokens == blind.usage.prompt_tokens + IMAGE_TOKENS
    # The same image is found in the prefix cache, and another one is not taken for it.
    cached = [each.usage.prompt_tokens_details.cached_tokens for each in (again, other)]
    assert cached[0] - cached[1] >= IMAGE_TOKENS


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    whole = chat(client, picture(3)).choices[0].message.content

    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, picture(3), stream=True)]

    assert "".join(pieces) == whole


def test_responses_take_images(client: openai.OpenAI) -> None:
    content: Any = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": data_url(picture(1)), "detail": "auto"},
    ]

    blind = client.responses.create(model=UID, input="What is it?", temperature=0, max_output_tokens=16)
    seen = client.responses.create(
        model=UID, input=[{"role": "user", "content": content}], temperature=0, max_output_tokens=16
    )

    assert seen.usage is not None
    assert blind.usage is not None
    assert seen.usage.input_tokens == blind.usage.input_tokens + IMAGE_TOKENS


def test_messages_take_images_and_count_them(http: httpx.Client, xinfer_server: Any) -> None:
    data = base64.b64encode(picture(1)).decode()
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    question: Any = {"type": "text", "text": "What is it?"}
    with anthropic.Anthropic(
        base_url=xinfer_server.url.rstrip("/"), api_key=xinfer_server.token, max_retries=0
    ) as client:
        answer = client.messages.create(
            model=UID, max_tokens=8, messages=[{"role": "user", "content": [image, question]}]
        )
        counted = client.messages.count_tokens(model=UID, messages=[{"role": "user", "content": [image, question]}])
        without = client.messages.count_tokens(model=UID, messages=[{"role": "user", "content": [question]}])

    assert counted.input_tokens == answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert counted.input_tokens == without.input_tokens + IMAGE_TOKENS


def test_a_damaged_image_is_named_and_harms_nobody(client: openai.OpenAI) -> None:
    damaged = picture(1)[:60] + bytes(40)

    with pytest.raises(openai.BadRequestError, match="cannot be read") as refused:
        chat(client, picture(2), damaged)

    assert refused.value.param == "messages[0].content[2]"
    part: Any = {"type": "input_image", "image_url": data_url(damaged), "detail": "auto"}
    with pytest.raises(openai.BadRequestError, match="cannot be read") as refused:
        client.responses.create(model=UID, instructions="Look.", input=[{"role": "user", "content": [part]}])
    assert refused.value.param == "input[0].content[0]"
    assert chat(client, picture(2)).choices[0].message.content


def test_a_projector_of_another_model_is_refused_at_the_launch(http: httpx.Client, tmp_path: Any) -> None:
    path = write_projector(tmp_path / "other.gguf", text_width=64)

    answer = http.post(
        "v1/models", json={"model_name": "xinfer-demo", "model_uid": "no", "multimodal_projector": str(path)}
    )

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "multimodal_projector"
    assert "mm.2.weight" in answer.text


def test_a_projector_counts_in_the_forecast(http: httpx.Client) -> None:
    seeing, blind = (http.get(f"v1/models/{uid}").json()["memory_bytes"] for uid in (UID, "xinfer-demo"))
    assert seeing > blind
