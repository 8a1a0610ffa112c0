"""Streams over real sockets: leaving one early must reach the server."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from xinfer_runtime.client import AsyncClient, Client

CHUNK = f"data: {json.dumps({'choices': [{'delta': {'content': 'word '}}]})}\n\n".encode()


class SlowServer(ThreadingHTTPServer):
    """Streams a word every 20 ms to everybody, until `left` is set by the client's going."""

    daemon_threads = True

    def __init__(self, describe: Callable[..., dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.description = describe()
        self.left = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


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
            for _ in range(500):
                self.wfile.write(CHUNK)
                time.sleep(0.02)
        except OSError:
            self.server.left.set()


@pytest.fixture
def slow(model: Callable[..., dict[str, Any]]) -> Iterator[SlowServer]:
    with SlowServer(model) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_leaving_a_with_block_ends_the_generation(slow: SlowServer) -> None:
    with Client(slow.url, "k") as client, client.get_model("demo").chat("Hi", stream=True) as stream:
        assert next(stream) == "word "
        stream.close()
        assert slow.left.wait(1)


def test_dropping_a_stream_ends_the_generation(slow: SlowServer) -> None:
    with Client(slow.url, "k") as client:
        for _ in client.get_model("demo").chat("Hi", stream=True):
            break
        assert slow.left.wait(1)


def test_closing_from_another_thread_ends_the_loop_quietly(slow: SlowServer) -> None:
    with Client(slow.url, "k") as client, client.get_model("demo").chat("Hi", stream=True) as stream:
        timer = threading.Timer(0.1, stream.close)
        timer.start()
        words = list(stream)
        timer.join()
    assert 0 < len(words) < 100
    assert slow.left.wait(1)


async def test_cancelling_a_task_ends_the_generation(slow: SlowServer) -> None:
    async def read() -> None:
        async with AsyncClient(slow.url, "k") as client:
            model = await client.get_model("demo")
            async with await model.chat("Hi", stream=True) as stream:
                async for _ in stream:
                    started.set()

    started = asyncio.Event()
    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(slow.left.wait, 1)
