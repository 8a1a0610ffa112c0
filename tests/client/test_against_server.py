"""Both clients against a real server with the demo model, found as a kernel finds it."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from xinfer_runtime.client import AsyncClient, Client
from xinfer_runtime.errors import Conflict, InvalidRequest, ModelFileError, ModelNotFound

QUESTION = "What is the capital of France?"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def environment(xinfer_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel of this server has: the server's address and the place of its key."""
    monkeypatch.delenv("XINFER_API_KEY", raising=False)
    for name in ("XINFER_BASE_URL", "XINFER_RUNTIME_FILE"):
        monkeypatch.setenv(name, xinfer_server.env[name])


@pytest.fixture
def client(environment: None) -> Iterator[Client]:
    with Client() as client:
        yield client


def test_a_client_finds_its_server(client: Client, xinfer_server: Any) -> None:
    assert client.base_url == xinfer_server.url
    assert client.info().cluster.state == "running"


def test_a_question_is_answered(client: Client) -> None:
    answer = client.get_model("xinfer-demo").chat(QUESTION, temperature=0)
    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_a_stream_says_the_same_and_keeps_the_usage(client: Client) -> None:
    model = client.get_model("xinfer-demo")
    whole = model.chat(QUESTION, temperature=0)
    with model.chat(QUESTION, temperature=0, stream=True) as stream:
        pieces = list(stream)
    assert "".join(pieces) == whole.text
    assert stream.result.usage is not None
    assert whole.usage is not None
    assert stream.result.usage.completion_tokens == whole.usage.completion_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called(client: Client, stream: bool) -> None:
    model = client.get_model("xinfer-demo")
    if stream:
        with model.chat("What is the weather in Paris?", tools=[WEATHER], temperature=0, stream=True) as pieces:
            list(pieces)
        answer = pieces.result
    else:
        answer = model.chat("What is the weather in Paris?", tools=[WEATHER], temperature=0)
    assert [(call.name, json.loads(call.arguments)) for call in answer.tool_calls] == [
        ("get_weather", {"city": "Paris"})
    ]


def test_a_model_is_launched_with_progress_and_stopped(client: Client) -> None:
    states: list[str] = []
    uid = client.launch_model("xinfer-demo", model_uid="client-test", progress=lambda model: states.append(model.state))
    try:
        assert states[-1] == "ready"
        assert uid in client.list_models()
        assert client.model_events(uid)
        with pytest.raises(Conflict):
            client.launch_model("xinfer-demo", model_uid=uid)
    finally:
        client.terminate_model(uid)
    with pytest.raises(ModelNotFound):
        client.get_model(uid)


def test_the_servers_errors_keep_their_class(client: Client) -> None:
    with pytest.raises(ModelNotFound, match="xinfer-demo"):
        client.launch_model("xinfer-dem")
    with pytest.raises(ModelFileError):
        client.launch_model(model_path="/nowhere/model.gguf")
    with pytest.raises(InvalidRequest) as caught:
        client.get_model("xinfer-demo").chat(QUESTION, temperature=99)
    assert caught.value.param == "temperature"


def test_a_stream_that_is_left_frees_its_slot(client: Client) -> None:
    model = client.get_model("xinfer-demo")
    for _ in model.generate("Once upon a time", stream=True, max_tokens=900, temperature=1.0):
        break
    deadline = time.monotonic() + 5
    while model.refresh().description.running:
        assert time.monotonic() < deadline, "the server still generates"
        time.sleep(0.1)


def test_openais_client_is_ready_to_use(client: Client) -> None:
    with client.get_model("xinfer-demo").openai() as openai:
        answer = openai.chat.completions.create(
            model="xinfer-demo", messages=[{"role": "user", "content": QUESTION}], temperature=0
        )
    assert "Paris" in (answer.choices[0].message.content or "")


@pytest.mark.usefixtures("environment")
async def test_the_asynchronous_client_does_the_same() -> None:
    async with AsyncClient() as client:
        model = await client.get_model("xinfer-demo")
        whole = await model.chat(QUESTION, temperature=0)
        async with await model.chat(QUESTION, temperature=0, stream=True) as stream:
            pieces = [text async for text in stream]
        assert "".join(pieces) == whole.text
        uid = await client.launch_model("xinfer-demo", model_uid="async-client-test")
        await client.terminate_model(uid)
