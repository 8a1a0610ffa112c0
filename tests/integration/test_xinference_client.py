"""The unmodified client of Xinference 4.1, synchronous and asynchronous, against a real server."""

import asyncio
import json
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from xinference_client.client.restful.async_restful_client import (
    AsyncClient,
    AsyncRESTfulAudioModelHandle,
    AsyncRESTfulGenerateModelHandle,
    AsyncRESTfulImageModelHandle,
)
from xinference_client.client.restful.restful_client import (
    Client,
    RESTfulChatModelHandle,
    RESTfulGenerateModelHandle,
)

import xinfer_runtime.catalog

DEMO_FILE = Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf"
HELLO = [{"role": "user", "content": "Hello!"}]
GREEDY = {"temperature": 0, "max_tokens": 16}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(xinfer_server: Any) -> Iterator[Client]:
    client = Client(xinfer_server.url.rstrip("/"), api_key=xinfer_server.token)
    yield client
    client.close()


@pytest.fixture
async def async_client(xinfer_server: Any) -> AsyncIterator[AsyncClient]:
    client = AsyncClient(xinfer_server.url.rstrip("/"), api_key=xinfer_server.token)
    yield client
    await client.close()


def custom(name: str, path: Path = DEMO_FILE, **fields: Any) -> str:
    spec = {
        "model_format": "ggufv2",
        "model_size_in_billions": "0_004",
        "quantization": "q8_0",
        "model_id": None,
        "model_hub": "huggingface",
        "model_uri": path.as_uri(),
        "model_revision": None,
        "model_file_name_template": "",
    }
    return json.dumps(
        {
            "version": 2,
            "context_length": 1024,
            "model_name": name,
            "model_lang": ["en"],
            "model_ability": ["chat"],
            "model_description": "A model of mine",
            "model_family": "my-family",
            "model_specs": [spec],
            "is_builtin": False,
            **fields,
        }
    )


def test_the_token_is_needed_and_sent(xinfer_server: Any, client: Client) -> None:
    assert "xinfer-demo" in client.list_models()
    stranger = Client(xinfer_server.url.rstrip("/"), api_key="wrong")
    with pytest.raises(RuntimeError, match="detail: "):
        stranger.list_models()
    stranger.close()


def test_a_model_is_launched_used_and_ended(client: Client) -> None:
    uid = client.launch_model("xinfer-demo", model_engine="llama.cpp", model_uid="xi-1")
    try:
        assert uid == "xi-1"
        model = client.get_model(uid)
        assert type(model) is RESTfulChatModelHandle
        answer = model.chat(HELLO, generate_config=GREEDY)
        assert answer["choices"][0]["message"]["content"]
        assert answer["model"] == uid
        model.close()
    finally:
        client.terminate_model(uid)
    with pytest.raises(RuntimeError, match="No model 'xi-1'"):
        client.describe_model(uid)


def test_a_chat_streams_the_same_text(client: Client) -> None:
    model = client.get_model("xinfer-demo")
    whole = model.chat(HELLO, generate_config=GREEDY)
    chunks = list(model.chat(HELLO, generate_config={**GREEDY, "stream": True}))

    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    model.close()


def test_a_chat_takes_tools_and_enable_thinking(client: Client) -> None:
    model = client.get_model("xinfer-demo")
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]

    answer = model.chat(ask, tools=[WEATHER], generate_config={"temperature": 0})
    [call] = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert "city" in json.loads(call["function"]["arguments"])

    assert model.chat(HELLO, enable_thinking=False, generate_config=GREEDY)["choices"][0]["message"]["content"]
    model.close()


def test_text_is_completed_whole_and_streamed(xinfer_server: Any, client: Client) -> None:
    model = RESTfulGenerateModelHandle("xinfer-demo", xinfer_server.url.rstrip("/"), client._headers)
    whole = model.generate("Once upon a time", GREEDY)
    chunks = list(model.generate("Once upon a time", {**GREEDY, "stream": True}))

    assert whole["choices"][0]["text"]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"]) == whole["choices"][0]["text"]
    model.close()


def test_a_launch_in_the_background_is_followed_and_cannot_be_cancelled_when_ready(client: Client) -> None:
    client.launch_model("xinfer-demo", model_uid="xi-bg", wait_ready=False)
    try:
        for _ in range(600):
            progress = client.get_launch_model_progress("xi-bg")
            if progress["progress"] == 1:
                break
            threading.Event().wait(0.05)
        assert progress["progress"] == 1
        with pytest.raises(RuntimeError, match="Fail to cancel launching model, detail: "):
            client.cancel_launch_model("xi-bg")
    finally:
        client.terminate_model("xi-bg")


def test_a_launch_is_cancelled(client: Client) -> None:
    client.launch_model("xinfer-demo", model_uid="xi-cancel", wait_ready=False)
    client.cancel_launch_model("xi-cancel")
    assert client.list_models().get("xi-cancel", {}).get("state") in (None, "draining")


def test_a_description_has_what_clients_read(client: Client) -> None:
    model = client.describe_model("xinfer-demo")

    assert (model["model_type"], model["model_family"], model["model_format"]) == ("LLM", "xinfer-demo", "ggufv2")
    assert model["model_lang"] == ["en", "zh"]
    assert model["model_description"]
    assert model["address"].startswith("127.0.0.1:")
    for key in ("accelerators", "model_hub", "revision", "n_worker", "replica", "context_length", "quantization"):
        assert key in model


def test_every_field_of_the_payload_at_its_default_is_harmless(client: Client) -> None:
    uid = client.launch_model(
        "Xinfer-Demo",
        model_engine="LLAMA.CPP",
        model_uid="xi-payload",
        model_size_in_billions="0.004",
        model_format="GGUFv2",
        quantization="Q8_0",
        n_worker=1,
        n_gpu=None,
        enable_virtual_env=False,
        virtual_env_packages=[],
        envs={},
        gpu_idx=[],
        download_hub=None,
        max_model_len=512,
    )
    try:
        assert client.describe_model(uid)["context_length"] == 512
    finally:
        client.terminate_model(uid)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_limits", 3),
        ("n_worker", 2),
        ("enable_thinking", True),
        ("enable_virtual_env", True),
        ("virtual_env_packages", ["evil"]),
        ("envs", {"LD_PRELOAD": "/x.so"}),
        ("trust_remote_code", True),
        ("gpu_memory_utilization", 0.9),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client: Client, field: str, value: Any) -> None:
    with pytest.raises(RuntimeError, match=f"Failed to launch model, detail: `{field}`"):
        client.launch_model("xinfer-demo", model_uid="xi-refused", **{field: value})


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"worker_ip": "10.0.0.1"}, "it is not 10.0.0.1"),
        ({"replica_config": [{"devices": [{"worker_ip": "10.0.0.1:1"}]}]}, "it is not 10.0.0.1:1"),
        ({"gpu_idx": 63}, "needs .* of GPU 63"),
    ],
)
def test_a_place_that_does_not_exist_is_refused_with_the_reason(
    client: Client, wish: dict[str, Any], said: str
) -> None:
    with pytest.raises(RuntimeError, match=f"Failed to launch model, detail: .*{said}"):
        client.launch_model("xinfer-demo", model_uid="xi-refused", **wish)


def test_a_custom_model_is_registered_launched_by_name_and_unregistered(client: Client, xinfer_server: Any) -> None:
    client.register_model("LLM", custom("my-model"), persist=True)
    try:
        listed = {model["model_name"]: model for model in client.list_model_registrations("LLM")}
        assert (listed["my-model"]["is_builtin"], listed["xinfer-demo"]["is_builtin"]) == (False, True)
        assert client.get_model_registration("LLM", "my-model")["model_family"] == "my-family"
        assert list((xinfer_server.home / "registrations").glob("my-model-*.json"))

        uid = client.launch_model("my-model", quantization="Q8_0")
        try:
            described = client.describe_model(uid)
            assert (described["model_description"], described["model_family"]) == ("A model of mine", "my-family")
            model = client.get_model(uid)
            assert model.chat(HELLO, generate_config=GREEDY)["choices"][0]["message"]["content"]
            model.close()
        finally:
            client.terminate_model(uid)
    finally:
        client.unregister_model("LLM", "my-model")
    assert not list((xinfer_server.home / "registrations").glob("*.json"))
    with pytest.raises(RuntimeError, match="Unknown model"):
        client.launch_model("my-model")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{", "not the JSON"),
        (custom("../../etc/passwd"), "model_name"),
        (custom("xinfer-demo"), "packaged model"),
        (custom("m", model_specs=[]), "model_specs"),
    ],
)
def test_a_wrong_definition_is_refused_with_the_reason(client: Client, model: str, said: str) -> None:
    with pytest.raises(RuntimeError, match=f"Failed to register model, detail: .*{said}"):
        client.register_model("LLM", model, persist=True)


def test_what_is_packaged_is_described_and_kept(client: Client) -> None:
    assert client.get_model_registration("LLM", "xinfer-demo")["model_specs"][0]["quantization"] == "q8_0"
    with pytest.raises(RuntimeError, match="comes with the package"):
        client.unregister_model("LLM", "xinfer-demo")
    [cached] = client.list_cached_models("xinfer-demo")
    assert cached["size_bytes"] == DEMO_FILE.stat().st_size
    assert client.list_deletable_models(cached["model_version"])["paths"] == []
    with pytest.raises(RuntimeError, match="Failed to remove cached models, detail: "):
        client.confirm_and_remove_model(cached["model_version"])
    assert DEMO_FILE.exists()


def test_engines_are_queried_by_name(client: Client) -> None:
    expected = {"model_name": "xinfer-demo", "model_format": "ggufv2"}
    for model_type in ("LLM", None):
        [parameters] = client.query_engine_by_model_name("xinfer-demo", model_type=model_type)["llama.cpp"]
        assert expected.items() <= parameters.items()
        assert parameters["quantizations"] == ["q8_0"]
    with pytest.raises(RuntimeError, match="No model 'nothing'"):
        client.query_engine_by_model_name("nothing")


def test_the_cluster_is_described(client: Client, xinfer_server: Any) -> None:
    [worker] = client.get_workers_info()
    assert worker["work-ip"].startswith("tls://")
    assert worker["models"]
    assert client.get_supervisor_info()["supervisor_ip"] == client._get_supervisor_internal_address()
    assert client.vllm_models() == {"chat": [], "generate": []}
    with xinfer_server.client() as http:
        nodes = http.get("v1/cluster/info").json()
        assert [node["node_type"] for node in nodes] == ["Supervisor", "Worker"]
        assert http.get("v1/cluster/version").json()["version"]
        assert isinstance(http.get("v1/cluster/devices").json(), int)
        assert list(http.get("status").json()["workers"]) == [worker["work-ip"]]


def test_replicas_are_listed_added_and_removed(client: Client, xinfer_server: Any) -> None:
    client.launch_model("xinfer-demo", model_uid="xi-replicas")
    try:
        [instance] = client.get_instance_info(None, "xi-replicas")
        assert (instance["model_name"], instance["status"], instance["replica"]) == ("xinfer-demo", "READY", 1)
        [first] = instance["replica_statuses"]
        added = client.add_model_replica("xi-replicas")
        with xinfer_server.client() as http:
            replicas = http.get("v1/models/xi-replicas/replicas").json()
        assert {each["replica_id"] for each in replicas} == {first["replica_id"], added["replica_id"]}
        assert client.terminate_model_replica("xi-replicas", added["replica_id"]) == 1
    finally:
        client.terminate_model("xi-replicas")


def test_a_running_request_is_aborted_by_its_id(client: Client, xinfer_server: Any) -> None:
    body = {"model": "xinfer-demo", "messages": HELLO, "max_tokens": 900, "ignore_eos": True, "stream": True}
    with xinfer_server.client() as http, http.stream("POST", "v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert client.abort_request("xinfer-demo", answer.headers["X-Request-ID"]) == {"msg": "DONE"}
        rest = "".join(lines)
    assert '"code":"cancelled"' in rest
    assert client.abort_request("xinfer-demo", "nothing") == {"msg": "NOT_FOUND"}


def test_what_is_asked_before_each_generation_costs_little(xinfer_server: Any) -> None:
    """Dify asks both before each request. A round trip here includes the client's own work, on a shared machine."""
    with httpx.Client(base_url=xinfer_server.url, headers=xinfer_server.headers) as http:
        for path in ("v1/cluster/auth", "v1/models/xinfer-demo"):
            seconds = min(http.get(path).elapsed.total_seconds() for _ in range(50))
            assert seconds < 0.01


async def test_the_async_client_does_the_same(async_client: AsyncClient) -> None:
    with warnings.catch_warnings():
        # Its sessions are made with an option that the installed aiohttp no longer likes.
        warnings.simplefilter("ignore", DeprecationWarning)
        uid = await async_client.launch_model("xinfer-demo", model_uid="xi-async", wait_ready=True)
        try:
            assert uid in await async_client.list_models()
            model = await async_client.get_model(uid)
            answer = await model.chat(HELLO, generate_config=GREEDY)
            text = answer["choices"][0]["message"]["content"]
            streamed = await model.chat(HELLO, generate_config={**GREEDY, "stream": True})
            parts = [choice["delta"].get("content") or "" async for chunk in streamed for choice in chunk["choices"]]
            assert "".join(parts) == text
            await model.close()
            await async_client.register_model("LLM", custom("my-async"), persist=False)
            assert (await async_client.get_model_registration("LLM", "my-async"))["model_name"] == "my-async"
            await async_client.unregister_model("LLM", "my-async")
            assert await async_client.get_instance_info("xinfer-demo", uid)
            assert "llama.cpp" in await async_client.query_engine_by_model_name("xinfer-demo")
        finally:
            await async_client.terminate_model(uid)


async def test_the_async_client_manages_models_too(async_client: AsyncClient) -> None:
    await async_client.launch_model("xinfer-demo", model_uid="xi-async-bg", wait_ready=False)
    try:
        for _ in range(600):
            if (await async_client.get_launch_model_progress("xi-async-bg"))["progress"] == 1:
                break
            await asyncio.sleep(0.05)
        with pytest.raises(RuntimeError, match="Fail to cancel launching model, detail: "):
            await async_client.cancel_launch_model("xi-async-bg")
        assert (await async_client.describe_model("xi-async-bg"))["model_type"] == "LLM"
        [instance] = await async_client.get_instance_info("xinfer-demo", "xi-async-bg")
        added = await async_client.add_model_replica("xi-async-bg")
        assert added["replica_id"] != instance["replica_statuses"][0]["replica_id"]
        assert await async_client.terminate_model_replica("xi-async-bg", added["replica_id"]) == 1
    finally:
        await async_client.terminate_model("xi-async-bg")
    with pytest.raises(RuntimeError, match="No model 'xi-async-bg'"):
        await async_client.describe_model("xi-async-bg")


async def test_the_async_client_asks_about_models_and_cluster_too(async_client: AsyncClient) -> None:
    assert "llama.cpp" in await async_client.query_engine_by_model_name("xinfer-demo", model_type="LLM")
    assert [each["model_name"] for each in await async_client.list_model_registrations("LLM")] == ["xinfer-demo"]
    [cached] = await async_client.list_cached_models("xinfer-demo")
    assert (await async_client.list_deletable_models(cached["model_version"]))["paths"] == []
    with pytest.raises(RuntimeError, match="Failed to remove cached models, detail: "):
        await async_client.confirm_and_remove_model(cached["model_version"])
    [worker] = await async_client.get_workers_info()
    assert worker["models"]
    assert (await async_client.get_supervisor_info())["supervisor_ip"]
    assert await async_client.abort_request("xinfer-demo", "nothing") == {"msg": "NOT_FOUND"}


@pytest.mark.parametrize(
    ("handle", "call", "said"),
    [
        (AsyncRESTfulImageModelHandle, lambda handle: handle.text_to_image("a cat"), "text2image"),
        (AsyncRESTfulAudioModelHandle, lambda handle: handle.speech("hello"), "text2audio"),
        (AsyncRESTfulAudioModelHandle, lambda handle: handle.transcriptions(b"RIFF"), "audio2text"),
    ],
)
async def test_async_handles_say_what_is_missing(
    xinfer_server: Any, async_client: AsyncClient, handle: Any, call: Any, said: str
) -> None:
    model = handle("xinfer-demo", xinfer_server.url.rstrip("/"), async_client._headers)
    with pytest.raises(RuntimeError, match=f"does not have the ability '{said}'"):
        await call(model)
    await model.close()


async def test_the_async_client_completes_text(xinfer_server: Any, async_client: AsyncClient) -> None:
    model = AsyncRESTfulGenerateModelHandle("xinfer-demo", xinfer_server.url.rstrip("/"), async_client._headers)
    whole = await model.generate("Once upon a time", GREEDY)
    streamed = await model.generate("Once upon a time", {**GREEDY, "stream": True})
    parts = [chunk["choices"][0]["text"] async for chunk in streamed if chunk["choices"]]
    assert "".join(parts) == whole["choices"][0]["text"]
    await model.close()
