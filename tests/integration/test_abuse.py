"""What hostile and broken clients do to a server: it serves on, and holds no more memory and files than before."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.conftest import BASE_URL, XinferServer, start_server

MIB = 2**20
LEEWAY = 10 * MIB
"""By which the memory of a server with its cluster and replica may differ from one moment to the next."""
BODY_SECONDS = 10
CHAT = BASE_URL + "v1/chat/completions"
QUESTION: dict[str, Any] = {
    "model": "xinfer-demo",
    "messages": [{"role": "user", "content": "Hello!"}],
    "max_tokens": 1,
}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "DEEP"}}],
}
LONG = {
    "model": "xinfer-demo",
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "stream": True,
    "max_tokens": 200,
    "ignore_eos": True,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XinferServer]:
    running = start_server(tmp_path_factory.mktemp("abuse"), f"--XinferApp.body_timeout={BODY_SECONDS}")
    try:
        running.launch(model_name="xinfer-demo")
        # What is allocated once, for as many requests as there are at a time, is allocated before measuring.
        abort_streams(running, 200)
        serves(running)
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def afterwards(server: XinferServer) -> Iterator[None]:
    """After each abuse the server serves, nothing runs in its engine, and memory and open files are where they were."""
    files, size = open_files(server), memory(server)
    yield
    serves(server)
    eventually(lambda: running_requests(server) == 0)
    # Two of leeway: an idle HTTP connection of this test's own, and a file that is read again now and then.
    eventually(lambda: open_files(server) <= files + 2)
    eventually(lambda: memory(server) - size < LEEWAY)


def abort_streams(server: XinferServer, count: int) -> None:
    """Twenty at a time; half of them after their first words."""

    def abort(number: int) -> None:
        with server.client() as http, http.stream("POST", "v1/chat/completions", json=LONG) as stream:
            assert stream.status_code == 200
            if number % 2:
                next(stream.iter_lines())

    with ThreadPoolExecutor(20) as clients:
        for _ in clients.map(abort, range(count)):
            pass
    eventually(lambda: running_requests(server) == 0)


def serves(server: XinferServer) -> None:
    with server.client() as http:
        answer = http.post("v1/chat/completions", json=QUESTION)
    assert answer.status_code == 200, answer.text


def running_requests(server: XinferServer) -> int:
    with server.client() as http:
        model = http.get("v1/models/xinfer-demo").json()
    return sum(replica["running"] + replica["waiting"] for replica in model["replicas"])


def open_files(server: XinferServer) -> int:
    return sum(process.num_fds() for process in server.processes())


def memory(server: XinferServer) -> int:
    """Bytes of the server and of everything that it started."""
    return sum(process.memory_info().rss for process in server.processes())


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.2)


@contextlib.contextmanager
def connection(server: XinferServer) -> Iterator[socket.socket]:
    address = urlsplit(server.url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), timeout=60) as raw:
        yield raw


def head(server: XinferServer, *lines: str, path: str = CHAT, token: str | None = None, method: str = "POST") -> bytes:
    shown = f"Authorization: Bearer {token or server.token}"
    content = ["Host: 127.0.0.1", "Content-Type: application/json", shown, *lines]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *content, "", ""]).encode("latin-1")


def answer(raw: socket.socket) -> tuple[int, bytes]:
    """The status of the answer, and what came with it; 0 when the connection was closed without one."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while b"\r\n\r\n" not in received and (some := raw.recv(65536)):
            received += some
    return (int(received.split()[1]) if received else 0), received


@pytest.mark.parametrize("token", [None, "wrong"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_a_hundred_megabytes_is_read_and_not_kept(
    server: XinferServer, token: str | None, chunked: bool
) -> None:
    before, most = memory(server), 0
    with connection(server) as raw:
        size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {100 * MIB}"
        raw.sendall(head(server, size, token=token))
        for _ in range(100):
            raw.sendall(b"%x\r\n" % MIB + b" " * MIB + b"\r\n" if chunked else b" " * MIB)
            most = max(most, memory(server))
        if chunked:
            raw.sendall(b"0\r\n\r\n")
        status, _ = answer(raw)

    assert status == (401 if token else 413)
    # A caller's may be kept up to the limit of 32 MiB before it is known to be too long.
    assert most - before < (60 if chunked and not token else 20) * MIB


def test_who_asks_first_is_refused_before_the_body(server: XinferServer) -> None:
    with connection(server) as raw:
        raw.sendall(head(server, f"Content-Length: {100 * MIB}", "Expect: 100-continue"))
        assert answer(raw)[0] == 413


@pytest.mark.parametrize(("size", "statuses"), [(10_000, {200}), (200_000, {0, 400, 431})])
def test_long_headers_are_taken_or_refused(server: XinferServer, size: int, statuses: set[int]) -> None:
    with connection(server) as raw:
        raw.sendall(head(server, "X-Long: " + "a" * size, path=BASE_URL + "v1/models", method="GET"))
        assert answer(raw)[0] in statuses


@pytest.mark.parametrize(
    "length", ["abc", "-1", "+2", "1e3", "0_1", "2, 2", "2\r\nContent-Length: 3", "9" * 5000, "\xb2"]
)
@pytest.mark.parametrize("path", [CHAT, BASE_URL + "token", BASE_URL + "v1/nowhere"])
def test_a_length_that_is_no_number_is_the_callers_mistake(server: XinferServer, path: str, length: str) -> None:
    with connection(server) as raw:
        raw.sendall(head(server, f"Content-Length: {length}", path=path) + b"{}")
        assert answer(raw)[0] in (400, 404, 413)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "xinfer-demo", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "\\udfff"}]}',
        b"\xff" * 1000,
        b"\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"",
    ],
)
def test_a_body_that_is_no_text_is_the_callers_mistake(server: XinferServer, body: bytes) -> None:
    with server.client() as http:
        assert http.post("v1/chat/completions", content=body).status_code in (400, 404)


@pytest.mark.parametrize("levels", [100, 500, 700, 900, 960, 975, 985])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "v1/chat/completions",
            {**QUESTION, "tools": [{"type": "function", "function": {"name": "f", "parameters": 0}}]},
        ),
        ("v1/chat/completions", {**QUESTION, "chat_template_kwargs": {"a": 0}}),
        ("v1/chat/completions", {**QUESTION, "messages": [*QUESTION["messages"], CALL]}),
        ("v1/messages", {**QUESTION, "tools": [{"name": "f", "input_schema": 0}]}),
        ("tokenize", {"model": "xinfer-demo", "prompt": "a", "a": 0}),
        ("v1/models", {"model_name": "xinfer-demo", "model_uid": "deep", "lora": 0}),
    ],
)
def test_a_body_that_is_nested_deeply_is_the_callers_mistake(
    server: XinferServer, path: str, body: dict[str, Any], levels: int
) -> None:
    deep = '{"a":' * levels + "1" + "}" * levels
    with server.client() as http:
        text = json.dumps(body).replace(": 0", f": {deep}").replace("DEEP", json.dumps(deep)[1:-1])
        answer = http.post(path, content=text)
    assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(
    "path", ["v1/models/%ff%fe", "v1/model_registrations/LLM/%ff", "v1/cache/models?model_name=%ff"]
)
def test_a_url_that_is_no_text_is_the_callers_mistake(server: XinferServer, path: str) -> None:
    with connection(server) as raw:
        raw.sendall(head(server, path=BASE_URL + path, method="GET"))
        assert answer(raw)[0] in (400, 404)


def test_clients_that_send_a_byte_now_and_then_hold_nobody_up(server: XinferServer) -> None:
    body = b'{"model": "xinfer-demo", "messages": []}'
    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(connection(server)) for _ in range(100)]
        for turn in range(5):
            for number, raw in enumerate(slow):
                text = head(server, f"Content-Length: {len(body)}") + body
                # Half of them stop within the headers, the other half within the body.
                offset = turn + (0 if number % 2 else len(text) - len(body))
                raw.sendall(text[offset : offset + 1] if turn or number % 2 else text[: offset + 1])
            started = time.monotonic()
            serves(server)
            assert time.monotonic() - started < 20


def test_a_body_that_does_not_come_ends_its_connection(server: XinferServer) -> None:
    with connection(server) as raw:
        raw.sendall(head(server, "Content-Length: 1000") + b"{")
        started = time.monotonic()
        assert answer(raw)[0] == 0

    assert time.monotonic() - started > BODY_SECONDS - 1


def test_clients_that_end_in_the_middle_leave_nothing(server: XinferServer) -> None:
    for cut in (1, 30, 200, None):
        for _ in range(25):
            with connection(server) as raw:
                text = head(server, "Content-Length: 1000") + b'{"model": "xinfer-demo"'
                raw.sendall(text[:cut])
                raw.shutdown(socket.SHUT_WR)
                assert answer(raw)[0] in (0, 400)


def test_a_client_that_does_not_read_is_dropped_with_its_stream(server: XinferServer) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(8):
            raw = opened.enter_context(connection(server))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            with server.client() as http:
                body = http.build_request("POST", "v1/chat/completions", json=LONG).content
            raw.sendall(head(server, f"Content-Length: {len(body)}") + body)
        serves(server)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_aborted_streams_leave_nothing(server: XinferServer) -> None:
    abort_streams(server, 1000)


def test_the_log_of_all_this_shows_no_failure_of_ours(server: XinferServer) -> None:
    written = Path(server.log).read_text()

    assert "Traceback" not in written
    assert "Uncaught exception" not in written
