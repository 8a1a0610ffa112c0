"""One id for a request, in its answer, in the gateway's log and in the replica's, as JSON lines."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import XinferServer, start_server

PROMPT = "Please count to 100, zanzibar."
HEADER = "X-Request-Id"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XinferServer]:
    server = start_server(tmp_path_factory.mktemp("logs"), "--XinferApp.log_lines=json")
    server.launch(model_name="xinfer-demo", replica=2)
    yield server
    server.stop()


@pytest.fixture
def http(server: XinferServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def question(**fields: Any) -> dict[str, Any]:
    return {"model": "xinfer-demo", "messages": [{"role": "user", "content": PROMPT}], "temperature": 0, **fields}


def lines(path: Path, request_id: str) -> list[dict[str, Any]]:
    """Those about this request. Jupyter's first ones came before it read our option."""
    read = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    return [line for line in read if line.get("request_id") == request_id]


def until(look: Callable[[], list[Any]]) -> list[Any]:
    """Logs are written a moment after the answer."""
    deadline = time.monotonic() + 30
    while not (seen := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


def in_replicas(server: XinferServer, request_id: str) -> list[dict[str, Any]]:
    return [line for path in (server.home / "logs").glob("replica-*.log") for line in lines(path, request_id)]


def test_the_id_of_the_client_is_everywhere(server: XinferServer, http: httpx.Client) -> None:
    answer = http.post("v1/chat/completions", json=question(max_tokens=5), headers={HEADER: "mine-1"})

    assert answer.headers[HEADER] == "mine-1"
    [gateway] = until(lambda: lines(server.log, "mine-1"))
    assert (gateway["status"], gateway["model"]) == (200, "xinfer-demo")
    assert gateway["path"].endswith("/v1/chat/completions")
    [replica] = until(lambda: in_replicas(server, "mine-1"))
    assert (replica["outcome"], replica["completion_tokens"]) == ("length", 5)


def test_errors_have_an_id_too(server: XinferServer, http: httpx.Client) -> None:
    answer = http.post("v1/chat/completions", json=question(model="nobody\nforged"), headers={HEADER: "no id"})

    assert answer.status_code in (400, 404)
    made = answer.headers[HEADER]
    [line] = until(lambda: lines(server.log, made))
    assert "forged" not in json.dumps(line)
    stranger = httpx.get(f"{server.url}v1/models")
    assert stranger.headers[HEADER].startswith("req-")


def test_a_lost_replica_and_the_one_that_goes_on_are_logged_under_the_id(
    server: XinferServer, http: httpx.Client
) -> None:
    replicas = [replica["pid"] for replica in http.get("v1/models/xinfer-demo").json()["replicas"]]
    body = question(max_tokens=1000, ignore_eos=True, stream=True)
    with http.stream("POST", "v1/chat/completions", json=body, headers={HEADER: "lost-1"}) as answer:
        coming = answer.iter_lines()
        next(coming)
        for pid in replicas:
            os.kill(pid, signal.SIGKILL)
        assert any("[DONE]" in line for line in coming)

    lost = until(lambda: [line for line in lines(server.log, "lost-1") if line["logger"] == "xinfer.router"])
    assert lost[0]["replica"].startswith("xinfer-demo-")
    assert until(lambda: [line for line in in_replicas(server, "lost-1") if line["outcome"] in ("stop", "length")])


def test_a_client_that_left_is_logged_and_its_request_aborted(server: XinferServer, http: httpx.Client) -> None:
    body = question(max_tokens=1000, ignore_eos=True, stream=True)
    with http.stream("POST", "v1/chat/completions", json=body, headers={HEADER: "left-1"}) as answer:
        next(answer.iter_lines())

    assert until(lambda: [line["status"] for line in lines(server.log, "left-1")]) == [499]
    assert until(lambda: [line["outcome"] for line in in_replicas(server, "left-1")]) == ["aborted"]


def test_neither_secrets_nor_prompts_are_in_the_logs(server: XinferServer, http: httpx.Client) -> None:
    http.get("v1/models", params={"token": server.token})
    http.post("v1/chat/completions", json=question(max_tokens=3, temperature="zanzibar"))
    http.post("v1/chat/completions", json=question(max_tokens=3), headers={HEADER: "last"})
    until(lambda: in_replicas(server, "last"))

    for path in [server.log, *(server.home / "logs").iterdir()]:
        text = path.read_text()
        assert server.token not in text
        assert "zanzibar" not in text
