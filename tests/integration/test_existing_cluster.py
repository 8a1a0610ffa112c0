"""A Jupyter server on a Dask cluster that somebody else runs."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
from tests.chaos.processes import below
from tests.conftest import XinferServer, free_port, start_server

from xinfer_runtime.cluster.credentials import TlsCredentials

PROGRAM = Path(__file__).parents[1] / "cluster" / "their_cluster.py"


def server_on(address: str, credentials: TlsCredentials, folder: Path) -> XinferServer:
    options = [f"--scheduler={address}"]
    for name in ("ca", "cert", "key"):
        path = folder / f"{name}.pem"
        path.write_text(getattr(credentials, name))
        options.append(f"--XinferApp.tls_{name}_file={path}")
    return start_server(folder / "jupyter", *options)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[XinferServer]:
    credentials = TlsCredentials.create()
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        cluster.stdin.write(msgspec.json.encode(credentials) + b"\n")
        cluster.stdin.flush()
        address = cluster.stdout.readline().decode().strip()
        server = server_on(address, credentials, tmp_path)
        yield server
        server.stop()
        cluster.stdin.close()
        cluster.wait(30)


def test_models_run_on_the_configured_cluster_and_its_dashboard_is_linked(server: XinferServer) -> None:
    server.launch(model_name="xinfer-demo")
    question = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "What is 2 + 3?"}], "temperature": 0}
    with server.client() as http:
        answer = http.post("v1/chat/completions", json=question).json()
        info = http.get("xinfer/info").json()
        dashboard = http.get("xinfer/dask/status")
        started = [" ".join(process.cmdline()) for process in server.processes()]

    assert "5" in answer["choices"][0]["message"]["content"]
    assert info["cluster"]["state"] == "running"
    assert dashboard.status_code == 200
    assert not [command for command in started if "local_main" in command]


class Programs:
    """`dask scheduler` and `dask worker`, as somebody starts them by hand."""

    def __init__(self, folder: Path, credentials: TlsCredentials, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._port = free_port()
        self.address = f"tls://127.0.0.1:{self._port}"
        self._tls = []
        for option, name in (("ca-file", "ca"), ("cert", "cert"), ("key", "key")):
            path = folder / f"dask-{name}.pem"
            path.write_text(getattr(credentials, name))
            self._tls += [f"--tls-{option}", str(path)]

    def start_scheduler(self) -> "subprocess.Popen[bytes]":
        where = ("--host", self.address, "--port", str(self._port), "--dashboard-address", "127.0.0.1:0")
        return self._start("scheduler", *where)

    def start_worker(self) -> "subprocess.Popen[bytes]":
        where = ("--dashboard-address", "127.0.0.1:0", "--local-directory", str(self._folder / "scratch"))
        return self._start("worker", self.address, "--nthreads", "1", "--memory-limit", "0", *where)

    def _start(self, role: str, *options: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{role}.log").open("ab") as log:
            process = self._stack.enter_context(
                subprocess.Popen(
                    [Path(sys.executable).with_name("dask"), role, *options, *self._tls],
                    env={"XINFER_HOME": str(self._folder / "dask" / role), "PATH": "/usr/bin:/bin"},
                    stdout=log,
                    stderr=log,
                )
            )
        self._stack.callback(process.terminate)
        return process


def counted(http: httpx.Client) -> str:
    count = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "Please count to 100."}]}
    answer = http.post("v1/chat/completions", json=count | {"temperature": 0, "max_tokens": 600})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_scheduler_that_comes_back_costs_no_answer_and_no_model(tmp_path: Path) -> None:
    credentials = TlsCredentials.create()
    with ExitStack() as stack:
        programs = Programs(tmp_path, credentials, stack)
        scheduler, worker = programs.start_scheduler(), programs.start_worker()
        server = server_on(programs.address, credentials, tmp_path)
        stack.callback(server.stop)
        server.launch(model_name="xinfer-demo")
        over = threading.Event()

        def user() -> list[str]:
            texts = []
            with server.client() as http:
                while not over.is_set():
                    texts.append(counted(http))
            return texts

        with server.client() as http, ThreadPoolExecutor() as threads:
            undisturbed = counted(http)
            users = [threads.submit(user) for _ in range(4)]
            try:
                scheduler.kill()
                scheduler.wait()
                refused = http.delete("v1/models/xinfer-demo")
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "cluster_unavailable")
                # Dask ends what has lost its scheduler.
                worker.wait(60)
                _, alive = psutil.wait_procs(list(below(tmp_path / "dask")), timeout=30)
                assert not alive, [process.cmdline() for process in alive]
                programs.start_scheduler()
                programs.start_worker()
                again = counted(http)
                time.sleep(1)
            finally:
                over.set()
            texts = [text for each in users for text in each.result(60)]

    assert {again, *texts} == {undisturbed}
