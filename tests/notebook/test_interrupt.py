"""Interrupting a real kernel in the middle of an answer."""

import queue
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from tests.client.slow_server import SlowServer


@pytest.fixture
def kernel(slow: SlowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelManager]:
    """An IPython kernel that finds the slow server by its environment."""
    monkeypatch.setenv("XINFER_BASE_URL", slow.url)
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
    assert slow.left.wait(max(0.0, interrupted + 1 - time.monotonic())), "the server still streams a second later"

    reply = client.execute("x = answer.text", user_expressions={"text": "x"}, reply=True, timeout=30)
    assert reply["content"]["user_expressions"]["text"]["data"]["text/plain"].startswith("'word ")
