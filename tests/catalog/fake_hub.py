"""A model hub on loopback that speaks as Hugging Face's does: redirections to another host, ranges, checksums."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """One request for content."""

    start: int
    end: int | None
    authorization: str | None


@dataclass
class FakeHub:
    """`files` by their paths on the hub. The others make it misbehave."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None
    cut_after: int | None = None
    """Bytes after which the next answers end, once each time it is set."""
    seconds_per_chunk: float = 0.0
    """In answers that go on to the end of a file."""
    sha256: str | None = None
    """What it says, where that is not the truth."""
    token: str | None = None
    """What it wants to see."""
    asked: list[Asked] = field(default_factory=list)
    """Of the host with the content."""
    url: str = ""
    content_url: str = ""

    def add(self, path: str, content: bytes) -> None:
        owner, model, *file = path.split("/")
        self.files[f"/{owner}/{model}/resolve/main/{'/'.join(file)}"] = content


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Running until it is left."""
    hub = FakeHub()
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, content)) for content in (False, True)]
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}) for server in servers]
    for thread in threads:
        thread.start()
    hub.url, hub.content_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def _handler(hub: FakeHub, content: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = hub.files.get(self.path)
            if hub.status is not None or file is None:
                self._empty(hub.status or 404)
            elif content:
                self._send(file)
            elif hub.token is not None and self.headers["Authorization"] != f"Bearer {hub.token}":
                self._empty(401)
            else:
                digest = hub.sha256 or hashlib.sha256(file).hexdigest()
                self._empty(302, **{"Location": f"{hub.content_url}{self.path}", "X-Linked-Etag": f'"{digest}"'})

        def _empty(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, file: bytes) -> None:
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"])
            assert found is not None
            start, end = int(found[1]), int(found[2]) + 1 if found[2] else None
            hub.asked.append(Asked(start, end, self.headers["Authorization"]))
            if start >= len(file):
                self._empty(416)
                return
            part = file[start:end]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(file)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if hub.cut_after is not None and len(part) > hub.cut_after:
                part, hub.cut_after = part[: hub.cut_after], None
                self.close_connection = True
            for at in range(0, len(part), 1 << 16):
                try:
                    self.wfile.write(part[at : at + (1 << 16)])
                except OSError:
                    return
                time.sleep(hub.seconds_per_chunk if end is None else 0.0)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
