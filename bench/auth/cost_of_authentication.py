"""What it costs to know who calls: microseconds per credential, alone and in a request over a socket.

    python bench/auth/cost_of_authentication.py [--json]

`alone` is `Gate.recognises` and `Gate.identify` for each kind of credential, with 1,000 keys in the store. `request` is
`GET /v1/models` of a real Jupyter server without models over one kept-alive connection, whose time is mostly HTTP;
`/health` is the same without a caller. The difference of the two is what the caller costs, with Jupyter's own for
comparison.
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
from collections.abc import Awaitable, Callable
from logging import getLogger
from pathlib import Path

import httpx

from jupyter_xinfer.auth.config import load_auth_config
from jupyter_xinfer.auth.gate import Gate
from jupyter_xinfer.auth.key_ring import KeyRing
from jupyter_xinfer.auth.key_store import KeyStore
from jupyter_xinfer.auth.runtime_key import RuntimeKey

KEYS = 1000
CALLS = 5000
REQUESTS = 1500
ROUNDS = 5
READ = frozenset({"models:list", "models:read"})
FILE_KEY = "sk-" + secrets.token_hex(16)


def auth_file(folder: Path) -> Path:
    path = folder / "auth.json"
    auth = {"algorithm": "HS256", "secret_key": secrets.token_hex(32), "token_expire_in_minutes": 30}
    user = {"username": "ann", "password": "bench", "permissions": ["models:list"], "api_keys": [FILE_KEY]}
    path.write_text(json.dumps({"auth_config": auth, "user_config": [user]}))
    path.chmod(0o600)
    return path


async def alone(folder: Path) -> dict[str, float]:
    """Microseconds for one credential of each kind, the best of `ROUNDS`."""
    store = KeyStore(folder)
    created = [store.create(name=f"key {number}", owner="bench", permissions=READ)[1] for number in range(KEYS)]
    runtime_key = RuntimeKey()
    gate = Gate(runtime_key, KeyRing(store, getLogger(__name__)), load_auth_config(auth_file(folder)))
    token = (await gate.logins.log_in("ann", "bench", "::1")).access_token
    time.sleep(0.1)  # noqa: ASYNC251 - until the stamp of the file is settled
    kinds = {"runtime key": runtime_key.key, "API key of the store": created[500], "API key of the file": FILE_KEY}
    return {kind: await _fastest(gate, credential) for kind, credential in {**kinds, "token of a login": token}.items()}


async def _fastest(gate: Gate, credential: str) -> float:
    async def once() -> None:
        if gate.recognises(credential):
            await gate.identify(credential)

    return min([await _microseconds(once) for _ in range(ROUNDS)])


async def _microseconds(call: Callable[[], Awaitable[None]]) -> float:
    await call()
    started = time.perf_counter()
    for _ in range(CALLS):
        await call()
    return (time.perf_counter() - started) / CALLS * 1e6


def requests(folder: Path) -> dict[str, float]:
    """Median microseconds of a request by credential, on a server of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _, stored = KeyStore(folder / "home").create(name="bench", owner="bench", permissions=READ)
    jupyter_token = secrets.token_hex(16)
    folders = {"XINFER_HOME": "home", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_CONFIG_DIR": "config"}
    env = {**os.environ, **{name: str(folder / part) for name, part in folders.items()}, "JUPYTER_TOKEN": jupyter_token}
    command = [str(Path(sys.executable).with_name("jupyter")), "xinfer", "local", "--port", str(port)]
    command += ["--auth-config", str(auth_file(folder)), "--allow-root", "--ServerApp.log_level=ERROR"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/") as http:
            _wait_until_up(http)
            login = http.post("token", json={"username": "ann", "password": "bench"}).json()["access_token"]
            found = {"nobody (/health)": _median(http, "health", "")}
            credentials = {
                "Jupyter's token": jupyter_token,
                "API key of the store": stored,
                "API key of the file": FILE_KEY,
                "token of a login": login,
            }
            for kind, credential in credentials.items():
                found[kind] = _median(http, "v1/models", credential)
                http.cookies.clear()
        return found
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _wait_until_up(http: httpx.Client) -> None:
    for _ in range(600):
        try:
            if http.get("health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def _median(http: httpx.Client, route: str, credential: str) -> float:
    headers = {"Authorization": f"Bearer {credential}"} if credential else {}
    times = []
    for _ in range(REQUESTS):
        started = time.perf_counter()
        http.get(route, headers=headers).raise_for_status()
        times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description="Microseconds that authentication costs.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        result = {"alone_us": asyncio.run(alone(Path(first))), "request_us": requests(Path(second))}
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, rows in result.items():
        print(name)
        for kind, microseconds in rows.items():
            print(f"  {kind:24} {microseconds:8.1f}")


if __name__ == "__main__":
    main()
