"""A server that streams slowly, over real sockets, and notices when its client leaves."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

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
