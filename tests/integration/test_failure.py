"""What users see when things die: a stream that goes on, a model that comes back, and nothing left behind."""

import os
import pty
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from tests.conftest import XinferServer, start_server

STORY = "Tell me a long story."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own: its processes get killed."""
    server = start_server(tmp_path_factory.mktemp("failure"))
    server.launch(model_name="xinfer-demo")
    yield server
    if server.process.poll() is None:
        server.stop()


def client_of(server: XinferServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}v1", api_key=server.token, max_retries=0)


def replica_pid(server: XinferServer) -> int:
    with server.client() as http:
        return int(http.get("v1/models/xinfer-demo").json()["replicas"][0]["pid"])


def ask(server: XinferServer) -> str:
    with client_of(server) as client:
        answer = client.chat.completions.create(
            model="xinfer-demo", messages=[{"role": "user", "content": "What is the capital of France?"}], temperature=0
        )
    return answer.choices[0].message.content or ""


def test_a_killed_replica_is_reported_restarted_and_answers_again(server: XinferServer) -> None:
    killed = replica_pid(server)
    os.kill(killed, signal.SIGKILL)

    assert "Paris" in ask(server)
    assert replica_pid(server) != killed
    with server.client() as http:
        model = http.get("v1/models/xinfer-demo").json()
        events = [event["event_content"] for event in http.get("v1/models/xinfer-demo/events").json()]
    assert model["state"] == "ready"
    assert model["replicas"][0]["restarts"] >= 1
    assert any("signal 9" in event for event in events)


def test_a_stream_survives_the_death_of_its_replica(server: XinferServer) -> None:
    with client_of(server) as client:

        def stream() -> Any:
            return client.chat.completions.create(
                model="xinfer-demo",
                messages=[{"role": "user", "content": STORY}],
                temperature=0,
                max_tokens=600,
                stream=True,
            )

        undisturbed = [chunk.choices[0].delta.content or "" for chunk in stream() if chunk.choices]
        pid = replica_pid(server)
        chunks = stream()
        # A busy server sends few and large pieces.
        text = [next(chunks).choices[0].delta.content or ""]
        os.kill(pid, signal.SIGKILL)
        text += [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]

    assert "".join(text) == "".join(undisturbed)


def test_a_stream_survives_the_death_of_the_local_cluster(server: XinferServer) -> None:
    count = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "Please count to 100."}]}
    with client_of(server) as client:

        def stream() -> Any:
            return client.chat.completions.create(**count, temperature=0, max_tokens=600, stream=True)  # type: ignore[call-overload]

        undisturbed = [chunk.choices[0].delta.content or "" for chunk in stream() if chunk.choices]
        cluster = next(process for process in server.processes() if "local_main" in " ".join(process.cmdline()))
        before = replica_pid(server)
        chunks = stream()
        text = [next(chunks).choices[0].delta.content or ""]
        cluster.kill()
        text += [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]

    assert "".join(text) == "".join(undisturbed)
    # What was under way may have been the whole answer, and the cluster is still about to start again.
    deadline = time.monotonic() + 60
    with server.client() as http:
        while not (replicas := http.get("v1/models/xinfer-demo").json().get("replicas")) or not replicas[0]["pid"]:
            assert time.monotonic() < deadline, "the model did not come back"
            time.sleep(0.1)
    assert replicas[0]["pid"] != before


def test_models_come_back_with_the_next_server_and_nothing_is_left_of_the_last(tmp_path: Path) -> None:
    first = start_server(tmp_path)
    first.launch(model_name="xinfer-demo")
    first.stop()

    second = start_server(tmp_path)
    try:
        deadline = time.monotonic() + 30
        with second.client() as http:
            while (answer := http.get("v1/models/xinfer-demo")).status_code != 200 or answer.json()["state"] != "ready":
                assert time.monotonic() < deadline, answer.text
                time.sleep(0.1)
        assert "Paris" in ask(second)
    finally:
        second.stop()


def ends_everything(server: XinferServer) -> None:
    family = server.processes()
    server.process.send_signal(signal.SIGINT)
    server.process.wait(60)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, [process.cmdline() for process in alive]


def test_ctrl_c_in_a_terminal_ends_everything(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    try:
        server = start_server(tmp_path, "--ServerApp.answer_yes=True", terminal=end)
        server.launch(model_name="xinfer-demo")
        ends_everything(server)
        assert "Shutting down" in server.log.read_text(), "in order"
    finally:
        os.close(terminal)
        os.close(end)


def test_an_interrupt_without_a_terminal_ends_everything(tmp_path: Path) -> None:
    """Jupyter stops at once, without telling its extensions."""
    server = start_server(tmp_path)
    server.launch(model_name="xinfer-demo")
    ends_everything(server)


def test_a_killed_server_leaves_no_process_behind(tmp_path: Path) -> None:
    server = start_server(tmp_path)
    server.launch(model_name="xinfer-demo")
    family = server.processes()

    server.process.kill()
    server.process.wait()

    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, [process.cmdline() for process in alive]
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}health")
