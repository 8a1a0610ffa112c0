"""Launching, describing, watching and ending models over HTTP."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

import xinfer_runtime.catalog

DEMO_FILE = Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf"


@pytest.fixture
def http(xinfer_server: Any) -> Any:
    with xinfer_server.client() as client:
        yield client


def chat(http: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "temperature": 0, **fields}
    return http.post("v1/chat/completions", json=body)


def test_a_model_is_described_with_its_replicas(http: httpx.Client) -> None:
    model = http.get("v1/models/xinfer-demo").json()

    assert model["id"] == model["model_uid"] == "xinfer-demo"
    assert (model["state"], model["quantization"], model["model_engine"]) == ("ready", "q8_0", "llama.cpp")
    assert {"chat", "generate", "tools"} <= set(model["model_ability"])
    assert model["context_length"] >= 1024
    assert model["memory_bytes"] > 0
    [replica] = model["replicas"]
    assert replica["state"] == "ready"
    assert replica["pid"] > 0


def test_no_replicas_secret_is_shown(http: httpx.Client) -> None:
    assert "token" not in json.loads(http.get("v1/models").text)["data"][0]["replicas"][0]


def test_a_local_file_is_launched_by_path_used_and_ended(http: httpx.Client) -> None:
    uid = http.post("v1/models", json={"model_path": str(DEMO_FILE), "model_uid": "by-path"}).json()["model_uid"]
    assert uid == "by-path"
    assert chat(http, "by-path").status_code == 200

    ended = http.delete("v1/models/by-path")
    assert (ended.status_code, ended.text) == (200, "null")
    assert http.get("v1/models/by-path").status_code == 404
    assert chat(http, "by-path").status_code == 404


def test_a_launch_without_waiting_is_watched_to_its_end(http: httpx.Client) -> None:
    assert http.post("v1/models?wait_ready=False", json={"model_name": "xinfer-demo", "model_uid": "watched"}).json()
    try:
        with http.stream("GET", "v1/models/watched/events", headers={"Accept": "text/event-stream"}) as answer:
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        assert json.loads(events[-2])["state"] == "ready"
        assert http.get("v1/models/watched/progress").json()["progress"] == 1
        assert any("ready" in event["event_content"] for event in http.get("v1/models/watched/events").json())
    finally:
        http.delete("v1/models/watched")


def test_two_replicas_share_one_name(http: httpx.Client) -> None:
    http.post("v1/models", json={"model_name": "xinfer-demo", "model_uid": "twins", "replica": 2}).raise_for_status()
    try:
        replicas = http.get("v1/models/twins").json()["replicas"]
        assert len({replica["pid"] for replica in replicas}) == 2
        assert chat(http, "twins").status_code == 200
    finally:
        http.delete("v1/models/twins")


def test_an_unknown_name_is_refused_with_the_nearest(http: httpx.Client) -> None:
    answer = http.post("v1/models", json={"model_name": "xinfer-dmo"})

    assert answer.status_code == 404
    assert "xinfer-demo" in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "model_name"


def test_a_uid_in_use_is_a_conflict(http: httpx.Client) -> None:
    answer = http.post("v1/models", json={"model_name": "xinfer-demo"})

    assert answer.status_code == 409
    assert "xinfer-demo" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "model_name"),
        ({"model_name": "xinfer-demo", "replica": 0}, "replica"),
        ({"model_name": "xinfer-demo", "replica": "two"}, "replica"),
        ({"model_name": "xinfer-demo", "quantization": "q1"}, "quantization"),
        ({"model_name": "xinfer-demo", "model_engine": "steam"}, "model_engine"),
        ({"model_name": "xinfer-demo", "model_uid": "a/b"}, "model_uid"),
        ({"model_name": "xinfer-demo", "modell_uid": "x"}, "modell_uid"),
    ],
)
def test_a_wrong_launch_names_the_field(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    answer = http.post("v1/models", json=fields)

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_file_that_is_not_there_is_named(http: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "nothing.gguf"

    answer = http.post("v1/models", json={"model_path": str(path)})

    assert answer.status_code == 400
    assert str(path) in answer.json()["error"]["message"]
    assert http.get("v1/models/nothing").status_code == 404


@pytest.mark.parametrize("fault", ["foreign", "truncated", "cut in the tensors"])
def test_a_broken_file_is_named_and_the_others_go_on(http: httpx.Client, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "broken.gguf"
    whole = DEMO_FILE.read_bytes()
    contents = {
        "foreign": b"PK\x03\x04" * 100,
        "truncated": whole[:2000],
        "cut in the tensors": whole[: len(whole) // 2],
    }
    path.write_bytes(contents[fault])

    answer = http.post("v1/models", json={"model_path": str(path)})

    assert answer.status_code == 400, answer.text
    assert str(path) in answer.json()["error"]["message"]
    assert chat(http, "xinfer-demo").status_code == 200


def test_the_catalog_lists_what_can_be_launched(http: httpx.Client) -> None:
    [demo] = [model for model in http.get("v1/model_registrations/LLM").json() if model["model_name"] == "xinfer-demo"]

    assert demo["model_specs"][0]["quantizations"] == ["q8_0"]


def test_info_tells_the_cluster_and_the_dashboard(http: httpx.Client, xinfer_server: Any) -> None:
    info = http.get("xinfer/info").json()

    assert info["cluster"]["state"] == "running"
    assert info["cluster"]["scheduler"].startswith("tls://127.0.0.1:")
    assert info["dashboard"].endswith("/xinfer/dask/status")


def test_the_dask_dashboard_answers_through_the_server(http: httpx.Client) -> None:
    page = http.get("xinfer/dask/status")

    assert page.status_code == 200
    assert "Dask" in page.text


def test_metrics_show_requests_tokens_and_load_by_model(http: httpx.Client) -> None:
    chat(http, "xinfer-demo").raise_for_status()

    text = http.get("metrics").text

    for series in (
        'xinfer_requests_total{endpoint="chat",model="xinfer-demo",outcome="stop"}',
        'xinfer_prompt_tokens_total{model="xinfer-demo"}',
        'xinfer_completion_tokens_total{model="xinfer-demo"}',
        'xinfer_time_to_first_token_seconds_count{model="xinfer-demo"}',
        'xinfer_requests_running{model="xinfer-demo"}',
        'xinfer_requests_waiting{model="xinfer-demo"}',
    ):
        assert series in text
