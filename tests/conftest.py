"""Fixtures that several kinds of tests share: a real server, with a real cluster below it."""

import asyncio
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from tornado.websocket import WebSocketClientConnection

if TYPE_CHECKING:
    from tests.chaos.network import Machine

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As where tests run in the background: servers would inherit that, and not end as they do in a terminal.
    signal.signal(signal.SIGINT, signal.default_int_handler)

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
BASE_URL = "/user/test/"


@dataclass
class XinferServer:
    """A running `jupyter xinfer local`. `url` ends in its base URL's slash; `env` is what its kernels would inherit."""

    url: str
    token: str = field(repr=False)
    process: subprocess.Popen[bytes]
    home: Path
    log: Path
    env: dict[str, str] = field(repr=False)
    ca: Path | None = None
    """Who signed its certificate, where it has one."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=90, verify=_verify(self.ca))

    def launch(self, **fields: object) -> str:
        with self.client() as http:
            answer = http.post("v1/models", json=fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["model_uid"])

    def processes(self) -> list[psutil.Process]:
        """Everything this server started, the server first."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def stop(self) -> None:
        """End the server as Ctrl-C would, and fail if it leaves a process behind."""
        family = self.processes() if self.process.poll() is None else []
        # Jupyter asks a terminal for confirmation on the first SIGINT; SIGTERM needs no terminal.
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_TIMEOUT)
        _, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT)
        assert not alive, f"left behind: {[process.cmdline() for process in alive if process.is_running()]}"


async def closed(connection: WebSocketClientConnection) -> None:
    """Close a websocket and wait for its end; one that is merely told to close keeps its socket, which is a leak."""
    connection.close()
    while await asyncio.wait_for(connection.read_message(), 30) is not None:
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(
    folder: Path, *options: str, machine: "Machine | None" = None, terminal: int | None = None, ca: Path | None = None
) -> XinferServer:
    """Start a server whose state, runtime files and configuration all lie below `folder`, here or on `machine`.

    `terminal` is the file descriptor of what it reads from. With
    `ca`, the options give it a certificate that this one signed.
    """
    port, token = free_port(), secrets.token_hex(16)
    home, log = folder / "xinfer", folder / "server.log"
    (folder / "work").mkdir(parents=True, exist_ok=True)
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("XINFER_", "JUPYTER_", "JPY_"))},
        "XINFER_HOME": str(home),
        "JUPYTER_TOKEN": token,
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    host = machine.there if machine is not None else "127.0.0.1"
    command = [
        *(machine.prefix if machine is not None else ()),
        str(Path(sys.executable).with_name("jupyter")),
        "xinfer",
        "local",
        "--host",
        host,
        "--port",
        str(port),
    ]
    command += [f"--ServerApp.base_url={BASE_URL}", f"--ServerApp.root_dir={folder / 'work'}", "--allow-root", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=env, stdin=terminal, stdout=output, stderr=subprocess.STDOUT, cwd=folder / "work"
        )
    url = f"{'http' if ca is None else 'https'}://{host}:{port}{BASE_URL}"
    kernel_env = {
        **env,
        "XINFER_BASE_URL": url,
        "XINFER_RUNTIME_FILE": str(folder / "runtime" / f"xinfer-{process.pid}.json"),
    }
    server = XinferServer(url, token, process, home, log, kernel_env, ca)
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers(url, ca):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")
        time.sleep(0.1)
    return server


def _verify(ca: Path | None) -> ssl.SSLContext | bool:
    return True if ca is None else ssl.create_default_context(cafile=str(ca))


def _answers(url: str, ca: Path | None) -> bool:
    try:
        return httpx.get(f"{url}health", timeout=2, verify=_verify(ca)).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def xinfer_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XinferServer]:
    """One server for all tests that only use it. It has `xinfer-demo` running; tests leave it that way."""
    server = start_server(tmp_path_factory.mktemp("server"))
    try:
        server.launch(model_name="xinfer-demo")
        yield server
    finally:
        server.stop()
