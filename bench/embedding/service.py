"""Servers that make vectors, each started with the same file, waited for, and stopped."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

START_SECONDS = 120


@dataclass(frozen=True)
class Endpoint:
    """`url` ends in a slash; `headers` let one in."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)

    def launch(self, **fields: object) -> str:
        answer = httpx.post(f"{self.url}v1/models", json=fields, headers=self.headers, timeout=START_SECONDS)
        answer.raise_for_status()
        return str(answer.json()["model_uid"])


@contextlib.contextmanager
def ours() -> Iterator[Endpoint]:
    """The whole service: Jupyter server, cluster and replicas, without a model yet."""
    port, token = _free_port(), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="bench-embedding-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "jupyter", "xinfer", "local", "--port", str(port), "--allow-root"]
        command += ["--ServerApp.answer_yes=True", "--ServerApp.log_level=ERROR", f"--ServerApp.root_dir={folder}"]
        folders = {"XINFER_HOME": "home", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_CONFIG_DIR": "config"}
        env = {key: str(folder / part) for key, part in folders.items()}
        endpoint = Endpoint(f"http://127.0.0.1:{port}/", {"Authorization": f"Bearer {token}"})
        with _process(command, folder / "log", {**env, "JUPYTER_TOKEN": token}) as started:
            _until_answers(started, endpoint, "v1/models", folder / "log")
            yield endpoint


@contextlib.contextmanager
def llama_server(binary: Path, model: Path, threads: int, slots: int, batch: int) -> Iterator[Endpoint]:
    port = _free_port()
    command = [str(binary), "-m", str(model), "--port", str(port), "-t", str(threads), "--embedding"]
    command += ["-np", str(slots), "-c", str(512 * slots), "-b", str(batch), "-ub", str(batch), "--log-disable"]
    with tempfile.TemporaryDirectory(prefix="bench-embedding-") as folder:
        endpoint = Endpoint(f"http://127.0.0.1:{port}/")
        with _process(command, Path(folder) / "log", {}) as started:
            _until_answers(started, endpoint, "health", Path(folder) / "log")
            yield endpoint


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _process(command: list[str], log: Path, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env}, start_new_session=True
        )
        try:
            yield started
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()


def _until_answers(started: "subprocess.Popen[bytes]", endpoint: Endpoint, path: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if started.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(endpoint.url + path, headers=endpoint.headers, timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"no answer:\n{log.read_text(errors='replace')[-2000:]}")
