"""A model that is unloaded when nobody asks it, and loaded again for the next request."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

UID = "sleepy"


@pytest.fixture
def http(xinfer_server: Any) -> Iterator[httpx.Client]:
    with xinfer_server.client() as client:
        launch = {"model_name": "xinfer-demo", "model_uid": UID, "idle_timeout": 2}
        assert client.post("v1/models", json=launch).status_code == 200
        yield client
        client.delete(f"v1/models/{UID}")


def asleep(http: httpx.Client) -> dict[str, Any]:
    """The model, once it sleeps and its processes are gone."""
    deadline = time.monotonic() + 60
    while True:
        model: dict[str, Any] = http.get(f"v1/models/{UID}").json()
        if model["state"] == "sleeping" and not model["replicas"]:
            return model
        assert time.monotonic() < deadline, model
        time.sleep(0.1)


def test_a_model_sleeps_and_wakes_for_a_request(http: httpx.Client) -> None:
    pid = http.get(f"v1/models/{UID}").json()["replicas"][0]["pid"]
    model = asleep(http)
    assert not psutil.pid_exists(pid)
    assert model["message"] == ""

    body = {"model": UID, "messages": [{"role": "user", "content": "Hello!"}], "temperature": 0, "max_tokens": 5}
    answer = http.post("v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] > 0
    asleep(http)
    with http.stream("POST", "v1/chat/completions", json={**body, "stream": True}) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    events = [event["event_content"] for event in http.get(f"v1/models/{UID}/events").json()]
    assert "unloaded after 2 s without a request" in events
    assert "loading again for a request" in events


def test_a_model_that_wakes_knows_what_it_was_asked_before(xinfer_server: Any) -> None:
    launch = {"model_name": "xinfer-demo", "model_uid": UID, "idle_timeout": 2, "prefix_store_bytes": 32 << 20}
    system = "You are a friendly assistant who explains notebooks. " * 6
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "What is a notebook?"}]
    body = {"model": UID, "messages": messages, "temperature": 0, "max_tokens": 20}
    with xinfer_server.client() as client:
        assert client.post("v1/models", json=launch).status_code == 200
        first = client.post("v1/chat/completions", json=body).json()
        asleep(client)
        again = client.post("v1/chat/completions", json=body).json()
        client.delete(f"v1/models/{UID}")
    assert again["choices"][0]["message"] == first["choices"][0]["message"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= 64


def test_a_launch_says_what_of_its_limits_cannot_be(http: httpx.Client) -> None:
    launch = {"model_name": "xinfer-demo", "model_uid": "never"}
    for field, value in (("min_replicas", 2), ("target_wait", 1), ("idle_timeout", 0), ("max_replicas", 0)):
        answer = http.post("v1/models", json={**launch, field: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
