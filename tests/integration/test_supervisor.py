"""A Jupyter server on the cluster of a supervisor, which a node joins: all as the command line starts them."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tests.conftest import XinferServer, start_server

SCRIPT = Path(sys.executable).with_name("jupyter-xinfer")


class Site:
    """A supervisor and a Jupyter server, which share a home, and nodes."""

    def __init__(self, folder: Path, stack: ExitStack, port: int = 0) -> None:
        self.folder = folder
        self.home = folder / "xinfer"
        self.stack = stack
        self.port = port
        self.start_supervisor()
        self.server = start_server(folder, f"--scheduler={self.address}")
        stack.callback(self.server.stop)

    def start_supervisor(self) -> None:
        self.supervisor = self.start("supervisor", self.home, "--port", str(self.port), "--join-port", "0")
        assert self.supervisor.stdout is not None
        self.address = self.supervisor.stdout.readline().split("at ")[1].split(";")[0]

    def start(self, command: str, home: Path, *options: str) -> "subprocess.Popen[str]":
        with (self.folder / f"{home.name}-{command}.log").open("ab") as log:
            process = self.stack.enter_context(
                subprocess.Popen(
                    [SCRIPT, command, *options],
                    env={"XINFER_HOME": str(home), "PATH": "/usr/bin:/bin"},
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            )
        self.stack.callback(process.terminate)
        return process

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [SCRIPT, *arguments], env=self.server.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def join(self, name: str) -> None:
        token = self.run("join-token").split()[-1]
        self.start("worker", self.folder / name, "--join", token, "--name", name)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("site"), stack)


@pytest.fixture(scope="module")
def server(site: Site) -> XinferServer:
    return site.server


def until(answer: Callable[[], httpx.Response], good: Callable[[httpx.Response], bool]) -> httpx.Response:
    deadline = time.monotonic() + 30
    while not good(got := answer()):
        assert time.monotonic() < deadline, got.text
        time.sleep(0.1)
    return got


def test_a_launch_that_waits_for_a_node_is_cancelled(server: XinferServer) -> None:
    with server.client() as http, ThreadPoolExecutor() as threads:
        launch = threads.submit(http.post, "v1/models", json={"model_name": "xinfer-demo"})
        cancelled = until(lambda: http.post("v1/models/xinfer-demo/cancel"), lambda answer: answer.status_code != 404)
        assert (cancelled.status_code, cancelled.text) == (200, "null")
        refused = launch.result(10)
    assert refused.status_code == 499
    assert refused.json()["error"]["code"] == "cancelled"


def test_replicas_are_added_and_removed_and_a_node_is_drained(site: Site, server: XinferServer) -> None:
    site.join("one")
    server.launch(model_name="xinfer-demo")
    with server.client() as http:
        assert http.post("v1/models/xinfer-demo/cancel").status_code == 409
        added = http.post("v1/models/xinfer-demo/replicas", json={}).json()
        assert added == {"replica_id": "xinfer-demo-1", "replica_model_uid": "xinfer-demo-1", "worker_address": "one"}
        assert http.post("v1/models/xinfer-demo/replicas", json={"replica": 0}).status_code == 400
        assert http.get("v1/models/xinfer-demo").json()["replica"] == 2
        removed = http.delete("v1/models/xinfer-demo/replicas/xinfer-demo-1").json()
        assert removed == {"remaining_replicas": 1}
        assert http.delete("v1/models/xinfer-demo/replicas/xinfer-demo-7").status_code == 404
        assert "not all of its own can move: xinfer-demo-0 stays" in site.run("drain", "one")
        site.join("two")
        until(
            lambda: http.get("v1/models/xinfer-demo"),
            lambda answer: [replica["node"] for replica in answer.json()["replicas"]] == ["two"],
        )
        assert "one is empty" in site.run("drain", "one")
        assert http.post("xinfer/drain", json={"node": "three"}).status_code == 404
        question = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "What is 2 + 3?"}]}
        assert http.post("v1/chat/completions", json=question | {"temperature": 0}).status_code == 200
        assert http.delete("v1/models/xinfer-demo/replicas/xinfer-demo-1").json() == {"remaining_replicas": 0}
        until(lambda: http.get("v1/models/xinfer-demo"), lambda answer: answer.status_code == 404)
