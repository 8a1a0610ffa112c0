"""What stands before a token: requests that ask, and requests for one token, with and without authentication.

    python bench/auth/cost_of_requests.py [--json]

`ask_us` is the median time of the two requests that Dify sends before each generation, and of others for comparison,
over one kept-alive connection by a client that does next to nothing: what is left is the server. `one_token` is the
number of requests per second for one token of `xinfer-demo`, one after the other and 16 at a time: from the engine in
this process, without any gateway; from a server that lets anybody in (Jupyter's empty token); and from the same server
with Jupyter's token and with an API key. The differences are routing with HTTP, and authentication.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from jupyter_xinfer.auth.key_store import KeyStore
from xinfer_runtime.engines.registry import create_engine
from xinfer_runtime.messages import ChatMessage, Delta, GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec

ASKED = 2000
GENERATED = 400
AT_ONCE = 16
ROUNDS = 3
READ = frozenset({"models:list", "models:read"})
BODY = json.dumps(
    {"model": "xinfer-demo", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}
).encode()


class Connection:
    """One kept-alive HTTP connection that sends bytes made beforehand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> None:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode())
        length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
        await self._reader.readexactly(int(length))

    def close(self) -> None:
        self._writer.close()


def request(route: str, credential: str, body: bytes = b"") -> bytes:
    lines = [f"{'POST' if body else 'GET'} /{route} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    if credential:
        lines.append(f"Authorization: Bearer {credential}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def median_us(port: int, sent: bytes) -> float:
    connection = await Connection.open(port)
    times = []
    for _ in range(ASKED):
        started = time.perf_counter()
        await connection.ask(sent)
        times.append((time.perf_counter() - started) * 1e6)
    connection.close()
    return statistics.median(times)


async def per_second(asks: Sequence[Callable[[], Awaitable[None]]]) -> float:
    """Requests per second of as many callers at once as there are `asks`; the best of `ROUNDS`."""

    async def caller(ask: Callable[[], Awaitable[None]]) -> None:
        for _ in range(GENERATED // len(asks)):
            await ask()

    found = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await asyncio.gather(*map(caller, asks))
        found.append(GENERATED / (time.perf_counter() - started))
    return max(found)


async def from_server(port: int, credential: str) -> dict[str, float]:
    sent = request("v1/chat/completions", credential, BODY)
    connections = [await Connection.open(port) for _ in range(AT_ONCE)]

    def asking(connection: Connection) -> Callable[[], Awaitable[None]]:
        return lambda: connection.ask(sent)

    asks = [asking(connection) for connection in connections]
    result = {"one by one": await per_second(asks[:1]), f"{AT_ONCE} at once": await per_second(asks)}
    for connection in connections:
        connection.close()
    return result


async def from_engine() -> dict[str, float]:
    engine = create_engine("llama.cpp")
    waiting: dict[str, asyncio.Future[None]] = {}

    def emit(deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if delta.last:
                waiting.pop(delta.id).set_result(None)

    await engine.load(ModelSpec(uid="demo", name="xinfer-demo", quantization="q8_0"), emit, lambda *_: None)
    numbers = iter(range(10**9))

    async def ask() -> None:
        id = str(next(numbers))
        done = waiting[id] = asyncio.get_running_loop().create_future()
        messages = (ChatMessage(role="user", content="Hello!"),)
        engine.submit(GenerateRequest(id=id, messages=messages, sampling=SamplingParams(max_tokens=1)))
        await done

    try:
        return {"one by one": await per_second([ask]), f"{AT_ONCE} at once": await per_second([ask] * AT_ONCE)}
    finally:
        await engine.close()


@contextmanager
def server(folder: Path, token: str) -> Iterator[int]:
    """The port of a server with `xinfer-demo` running; an empty `token` lets anybody in."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folders = {"XINFER_HOME": "home", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_CONFIG_DIR": "config"}
    env = {**os.environ, **{name: str(folder / part) for name, part in folders.items()}}
    command = [str(Path(sys.executable).with_name("jupyter")), "xinfer", "local", "--port", str(port), "--allow-root"]
    command += [f"--IdentityProvider.token={token}", "--ServerApp.log_level=ERROR"]
    command += ["--ServerApp.disable_check_xsrf=True"] if not token else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/", headers=headers, timeout=120) as http:
            _launch(http)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _launch(http: httpx.Client) -> None:
    for _ in range(600):
        try:
            http.post("v1/models", json={"model_name": "xinfer-demo"}).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


def measure() -> dict[str, Any]:
    token = secrets.token_hex(16)
    one_token = {"the engine alone": asyncio.run(from_engine())}
    with tempfile.TemporaryDirectory() as folder, server(Path(folder), "") as port:
        one_token["a server that lets anybody in"] = asyncio.run(from_server(port, ""))
    with tempfile.TemporaryDirectory() as folder, server(Path(folder), token) as port:
        _, key = KeyStore(Path(folder) / "home").create(name="bench", owner="bench", permissions=READ)
        one_token["Jupyter's token"] = asyncio.run(from_server(port, token))
        one_token["an API key"] = asyncio.run(from_server(port, key))
        ask = {
            route: asyncio.run(median_us(port, request(route, key)))
            for route in ("health", "v1/cluster/auth", "v1/models/xinfer-demo", "v1/models")
        }
    return {"ask_us": ask, "one_token_per_s": one_token}


def main() -> None:
    parser = argparse.ArgumentParser(description="What stands before a token.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure()
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for route, microseconds in result["ask_us"].items():
        print(f"{route:32} {microseconds:8.0f} us")
    for who, rates in result["one_token_per_s"].items():
        print(f"{who:32} " + ", ".join(f"{rate:.0f}/s {how}" for how, rate in rates.items()))


if __name__ == "__main__":
    main()
