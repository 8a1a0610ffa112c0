"""Interrupting a real kernel in the middle of an answer."""

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

CHUNK = f"data: {json.dumps({'choices': [{'delta': {'content': 'word '}}]})}\n\n".encode()


class SlowServer(ThreadingHTTPServer):
    """Streams a word every 20 ms for 20 s, and notes when the client has gone."""

    daemon_threads = True

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.description = description
        self.left: float | None = None


class Handler(BaseHTTPRequestHandler):
    server: SlowServer

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_GET(self) -> None:
        body = json.dumps(self.server.description).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(1000):
                self.wfile.write(CHUNK)
                time.sleep(0.02)
        except OSError:
            self.server.left = time.monotonic()


@pytest.fixture
def slow(model: Callable[..., dict[str, Any]]) -> Iterator[SlowServer]:
    with SlowServer(model()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def kernel(slow: SlowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelManager]:
    """An IPython kernel that finds the slow server by its environment."""
    monkeypatch.setenv("XINFER_BASE_URL", f"http://127.0.0.1:{slow.server_address[1]}/")
    monkeypatch.setenv("XINFER_API_KEY", "k")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    manager = KernelManager(kernel_name="python3", connection_file=str(tmp_path / "kernel.json"))
    manager._kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="test",
        language="python",
    )
    manager.start_kernel(cwd=str(tmp_path))
    yield manager
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


@pytest.fixture
def client(kernel: KernelManager) -> Iterator[BlockingKernelClient]:
    client = kernel.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield client
    client.stop_channels()


def outputs(client: BlockingKernelClient, message_id: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The content of the last display on iopub for this request, up to the message that `until` accepts."""
    shown: dict[str, Any] = {}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            message = client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        if message["parent_header"].get("msg_id") != message_id:
            continue
        if message["msg_type"] in ("display_data", "update_display_data"):
            shown = message["content"]
        if until(message):
            return shown
    pytest.fail("the kernel did not show what was expected")


def test_an_interrupt_keeps_the_text_and_reaches_the_server(
    kernel: KernelManager, client: BlockingKernelClient, slow: SlowServer
) -> None:
    client.execute("%load_ext jupyter_xinfer", reply=True, timeout=30)
    request = client.execute("%%xinfer demo -o answer\nTell me a story.")
    outputs(client, request, lambda message: message["msg_type"] == "update_display_data")
    interrupted = time.monotonic()
    kernel.interrupt_kernel()
    shown = outputs(client, request, lambda message: message["content"].get("execution_state") == "idle")

    assert shown["data"]["text/markdown"].startswith("word ")
    assert shown["data"]["text/markdown"].endswith("*(interrupted)*")
    assert shown["metadata"]["xinfer"]["finish_reason"] == "interrupted"
    while slow.left is None and time.monotonic() < interrupted + 1:
        time.sleep(0.01)
    assert slow.left is not None, "the server still streams a second later"

    reply = client.execute("x = answer.text", user_expressions={"text": "x"}, reply=True, timeout=30)
    assert reply["content"]["user_expressions"]["text"]["data"]["text/plain"].startswith("'word ")
