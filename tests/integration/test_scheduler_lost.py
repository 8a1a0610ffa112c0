"""What users of a Jupyter server notice when its supervisor dies, when another server does, and what the next finds."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import psutil
import pytest
from tests.chaos.processes import below
from tests.conftest import XinferServer, free_port, start_server
from tests.integration.test_supervisor import Site, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COUNT = {
    "model": "xinfer-demo",
    "messages": [{"role": "user", "content": "Please count to 100."}],
    "temperature": 0,
    "max_tokens": 600,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("lost")
    with ExitStack() as stack:
        site = Site(folder, stack, port=free_port())
        site.join("one")
        site.server.launch(model_name="xinfer-demo")
        yield site
    for _ in range(100):
        if not (left := list(below(folder))):
            break
        time.sleep(0.2)
    assert not left, [process.cmdline() for process in left]


def another_server(site: Site) -> XinferServer:
    """With a home of its own, as another user has."""
    tls = [f"--XinferApp.tls_{part}_file={site.home / 'tls' / part}.pem" for part in ("ca", "cert", "key")]
    return start_server(site.folder / "another", f"--scheduler={site.address}", *tls)


def replica(server: XinferServer) -> dict[str, Any]:
    with server.client() as http:
        return dict(http.get("v1/models/xinfer-demo").json()["replicas"][0])


def counted(server: XinferServer, begun: threading.Event | None = None) -> str:
    """The text of a stream; `begun` is set when its first piece is there."""
    text, last = "", ""
    with server.client() as http, http.stream("POST", "v1/chat/completions", json=COUNT | {"stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        for line in filter(None, answer.iter_lines()):
            if begun is not None:
                begun.set()
            last = line.removeprefix("data: ")
            if last != "[DONE]":
                text += json.loads(last)["choices"][0]["delta"].get("content") or ""
    assert last == "[DONE]"
    return text


def test_a_lost_supervisor_disturbs_no_answer_and_management_says_what_is_wrong(site: Site) -> None:
    before = replica(site.server)
    begun = threading.Event()
    with ThreadPoolExecutor() as threads, site.server.client() as http:
        stream = threads.submit(counted, site.server, begun)
        assert begun.wait(30)
        site.supervisor.kill()
        site.supervisor.wait()

        assert "100" in stream.result(60)
        assert "100" in counted(site.server), "a new request is answered too"
        refused = http.post("v1/models/xinfer-demo/replicas", json={})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "cluster_unavailable"
        assert site.address in refused.json()["error"]["message"]
        until(lambda: http.get("xinfer/info"), lambda info: info.json()["cluster"]["state"] == "unreachable")
        assert "100" in counted(site.server)

        site.start_supervisor()
        until(lambda: http.get("xinfer/info"), lambda info: info.json()["cluster"]["state"] == "running")
        assert http.post("v1/models/xinfer-demo/replicas", json={}).status_code == 200
        assert http.delete("v1/models/xinfer-demo/replicas/xinfer-demo-1").status_code == 200

    after = replica(site.server)
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"]), "the replica never stopped"


def test_a_server_that_starts_without_its_supervisor_finds_it_when_it_comes(site: Site) -> None:
    site.supervisor.kill()
    site.supervisor.wait()
    second = another_server(site)
    try:
        with second.client() as http:
            refused = http.post("v1/chat/completions", json=COUNT)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "cluster_unavailable"
            assert "retry-after" in refused.headers
            site.start_supervisor()
            until(lambda: http.get("xinfer/info"), lambda info: info.json()["cluster"]["state"] == "running")
        assert "100" in counted(second)
        assert replica(second)["pid"] == replica(site.server)["pid"], "both servers see the same model"
    finally:
        second.stop()


def test_models_live_on_when_a_server_is_killed_and_the_next_one_finds_them(site: Site) -> None:
    second = another_server(site)
    with second.client() as http:
        until(lambda: http.get("xinfer/info"), lambda info: info.json()["cluster"]["state"] == "running")
    before = replica(second)
    begun = threading.Event()
    with ThreadPoolExecutor() as threads:
        stream = threads.submit(counted, second, begun)
        assert begun.wait(30)
        second.process.send_signal(signal.SIGKILL)
        second.process.wait()
        assert isinstance(stream.exception(30), httpx.HTTPError | AssertionError)
    assert psutil.pid_exists(before["pid"])

    third = another_server(site)
    try:
        with third.client() as http:
            until(lambda: http.get("xinfer/info"), lambda info: info.json()["cluster"]["state"] == "running")
        assert replica(third)["pid"] == before["pid"]
        assert "100" in counted(third)
        # What the dead server had asked for is not computed for nobody.
        with third.client() as http:
            until(lambda: http.get("v1/models/xinfer-demo"), lambda answer: answer.json()["running"] == 0)
    finally:
        third.stop()
